//! What a user wishes for, in two or three words, as an instruction that a model can follow.

/// The first words of what is an instruction already.
const TELLING: &str = "act add address always answer apologise apologize argue ask avoid be become begin behave bring call cite claim \
    compare complain compose connect consider convince count criticise criticize decline deny describe discuss do doubt \
    emphasise emphasize encourage end ensure explain express fill find flatter flirt focus follow give greet hide \
    highlight ignore imagine imitate include insert insist insult invent joke keep lecture let lie list make mention mix \
    mock never number offer output pick play please praise prefer pretend promise promote quote reason recommend refer \
    refuse reject remind repeat reply report respond return rhyme roleplay say sell show sign sing sound speak spell \
    start state stay stop suggest summarise summarize support swear take talk tell think translate treat try turn use \
    warn whisper work write you your";
/// The first words of a manner.
const MANNER: &str = "as in like with without only using from by under through";
/// The last words of a manner.
const STYLES: &str = "style tone voice manner mood register accent dialect";
/// The last words of a tone.
const FEELINGS: &str = "sentiment feeling feelings emotion emotions";
/// How one can sound.
const TONES: &str = "abrupt affectionate aggressive amused angry annoyed anxious arrogant bitter bored boring brief calm \
    casual caring cautious cheerful childish cold concise confident creepy cruel curious cynical desperate detached \
    dramatic dry eerie elegant empathetic encouraging enthusiastic excited fearful flirtatious formal friendly funny \
    furious gentle gloomy grateful grumpy happy harsh hateful honest hopeful hostile humble humorous impatient informal \
    ironic jealous jolly joyful kind lazy lonely loving mean melancholic mischievous modest moody mysterious mystical naive \
    negative nervous neutral nostalgic objective optimistic passionate patient pessimistic playful poetic polite pompous \
    positive pretentious professional proud rebellious relaxed respectful romantic rude sad sarcastic scared sceptical \
    scholarly sentimental serious shy silly sincere skeptical snarky soothing spooky stern stoic strict supportive \
    suspicious sweet sympathetic tender terse thankful thoughtful tired upbeat vulgar warm whimsical wise witty worried";

/// An instruction for a wish: what reads as one is left as it is (but for its capital and its stop), a manner is answered in,
/// and all else is a subject.
///
/// ```
/// use tiller::choose::learn::instruction;
/// assert_eq!(instruction("write like a lawyer"), "Write like a lawyer.");
/// assert_eq!(instruction("in French"), "Answer in French.");
/// assert_eq!(instruction("formal legal style"), "Answer in a formal legal style.");
/// assert_eq!(instruction("ocean ships"), "Talk about ocean ships in your answer.");
/// ```
pub fn instruction(wish: &str) -> String {
    let wish = wish.trim();
    let lower = wish.to_lowercase();
    let mut words = lower.split(|c: char| !(c.is_alphanumeric() || c == '\'')).filter(|word| !word.is_empty());
    let (first, last) = (words.next().unwrap_or_default(), words.next_back());
    let told = first.ends_with("n't") || wish.ends_with(['.', '!', '?', '。']);
    if wish.is_empty() || told || (among(TELLING, first) && last.is_some()) {
        return sentence(wish);
    }
    if let Some(tone) = tone(&lower) {
        return format!("Answer in a very {tone} tone.");
    }
    match first {
        "no" | "more" | "less" | "fewer" => format!("Answer with {wish}."),
        "very" => format!("Give {wish}."),
        _ if among(MANNER, first) => format!("Answer {wish}."),
        _ => match last {
            Some("language") => format!("Answer in the {wish}."),
            Some(last) if among(STYLES, last) => format!("Answer in {} {wish}.", article(first)),
            Some(last) if among(FEELINGS, last) || among("humor humour", last) => format!("Answer with {wish}."),
            _ => format!("Talk about {wish} in your answer."),
        },
    }
}

/// What a wish that names nothing but tones asks for: "angry", "sad and gloomy", "very polite", "positive sentiment".
fn tone(wish: &str) -> Option<String> {
    let mut words: Vec<&str> = wish.split(|c: char| !c.is_alphabetic()).filter(|word| !word.is_empty()).collect();
    words.pop_if(|last| among(FEELINGS, last) || *last == "tone");
    if words.first() == Some(&"very") {
        words.remove(0);
    }
    let (tones, rest): (Vec<&str>, Vec<&str>) = words.iter().partition(|word| among(TONES, word));
    (!tones.is_empty() && rest.iter().all(|word| among("and but yet very", word))).then(|| words.join(" "))
}

fn among(list: &str, word: &str) -> bool {
    list.split_whitespace().any(|known| known == word)
}

fn article(word: &str) -> &'static str {
    if word.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" }
}

/// An instruction as a sentence: models follow "Write like a lawyer." better than the same without its signs.
pub(super) fn sentence(instruction: &str) -> String {
    let text = instruction.trim();
    let mut chars = text.chars();
    let mut told: String = chars.next().map(char::to_uppercase).into_iter().flatten().chain(chars).collect();
    if told.chars().last().is_some_and(char::is_alphanumeric) {
        told.push('.');
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_become_sentences() {
        assert_eq!(sentence(" write like a lawyer "), "Write like a lawyer.");
        assert_eq!(sentence("Who are you?"), "Who are you?");
        assert_eq!(sentence("écris en français!"), "Écris en français!");
        assert_eq!(sentence(""), "");
    }

    #[test]
    fn wishes_become_instructions() {
        for (wish, told) in [
            ("sea", "Talk about sea in your answer."),
            ("Talk about the sea.", "Talk about the sea."),
            ("be brief", "Be brief."),
            ("don't use lists", "Don't use lists."),
            ("no code", "Answer with no code."),
            ("as a pirate", "Answer as a pirate."),
            ("very short answers", "Give very short answers."),
            ("French language", "Answer in the French language."),
            ("angry tone", "Answer in a very angry tone."),
            ("angry", "Answer in a very angry tone."),
            ("British humour", "Answer with British humour."),
            ("eerie voice", "Answer in an eerie voice."),
            ("sad and gloomy", "Answer in a very sad and gloomy tone."),
            ("Very polite", "Answer in a very polite tone."),
            ("cold war", "Talk about cold war in your answer."),
            ("positive sentiment", "Answer in a very positive tone."),
            ("wedding bride groom marriage", "Talk about wedding bride groom marriage in your answer."),
            // A verb alone may be a noun.
            ("work", "Talk about work in your answer."),
            ("", ""),
        ] {
            assert_eq!(instruction(wish), told);
        }
    }
}
