//! What is asked for, on which prompts, and how a text is scored.

use tiller::eval::behaviours::Behaviour;
use tiller::eval::concepts::{self, hits};
use tiller::{Error, Result};

use super::methods::Method;

/// How prompts are put to the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Setting {
    /// Messages in the chat template.
    Chat,
    /// Beginnings of texts.
    Plain,
    /// Messages in the chat template, after other talk.
    Later,
}

impl Setting {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::Plain => "plain",
            Self::Later => "later",
        }
    }
}

/// How a text is scored.
pub(super) enum Measure {
    /// Words of a concept that nothing else knows.
    Words(Vec<String>),
    Behaviour(Behaviour),
    /// Words or a behaviour that tell whether a wish came.
    Wish(Option<Behaviour>, Vec<String>),
}

pub(super) struct Task {
    pub(super) name: String,
    pub(super) instruction: String,
    pub(super) measure: Measure,
    /// Words by which features are chosen and strengths searched; none for behaviours.
    pub(super) words: Vec<String>,
    /// Prompts that score, and prompts to search on, for each setting.
    pub(super) chat: [Vec<String>; 2],
    pub(super) plain: [Vec<String>; 2],
    /// What it is steered together with.
    pub(super) partner: Option<Box<Task>>,
}

/// Messages that speak of nothing in particular: no word of a concept is in them, and the learner does not know them.
const CHAT: [&str; 16] = [
    "Tell me a short story.",
    "What are you thinking about?",
    "Describe a place that you like.",
    "Give me a piece of advice.",
    "What happened last week?",
    "Tell me something about yourself.",
    "How should I spend the evening?",
    "What is worth remembering?",
    "Write a few sentences about anything.",
    "Describe an ordinary morning.",
    "What would you like to talk about?",
    "Make up a strange dream.",
    "Tell me about someone you admire.",
    "What is a good question to ask?",
    "Describe something small.",
    "How do things change over time?",
];
/// Others of the kind, for searching.
const CHAT_SEARCH: [&str; 8] = [
    "Tell me a secret.",
    "What comes to your mind?",
    "Describe your favorite room.",
    "Write a paragraph, please.",
    "What did you do yesterday?",
    "Tell me more about it.",
    "What makes you curious?",
    "Invent a short tale.",
];

fn list(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

/// The concepts of a suite.
pub(super) fn concepts(suite: &concepts::Suite) -> Vec<Task> {
    let task = |concept: &concepts::Concept| Task {
        name: concept.name.clone(),
        instruction: tiller::choose::learn::instruction(&concept.words.join(", ")),
        measure: Measure::Words(concept.held_out.clone()),
        words: concept.words.clone(),
        chat: [list(&CHAT), list(&CHAT_SEARCH)],
        plain: [suite.prompts.iter().take(CHAT.len()).cloned().collect(), suite.search_prompts.clone()],
        partner: None,
    };
    suite.concepts.iter().map(task).collect()
}

/// Concepts two by two: each has the other as its partner.
pub(super) fn pairs(suite: &concepts::Suite) -> Vec<Task> {
    let partners = concepts(suite);
    let mut tasks = concepts(suite);
    for (i, partner) in partners.into_iter().enumerate() {
        if let Some(task) = tasks.get_mut(i ^ 1) {
            task.partner = Some(Box::new(partner));
        }
    }
    tasks
}

/// All behaviours, or those with these names.
pub(super) fn behaviours(names: &[String]) -> Result<Vec<Task>> {
    if let Some(name) = names.iter().find(|name| Behaviour::from_name(name).is_none()) {
        let known: Vec<&str> = Behaviour::ALL.iter().map(|b| b.name()).collect();
        return Err(Error::argument(format!("--concepts: expected some of {}, found {name:?}", known.join(", "))));
    }
    let wanted = |b: &Behaviour| names.is_empty() || names.iter().any(|name| name == b.name());
    let task = |behaviour: Behaviour| Task {
        name: behaviour.name().to_owned(),
        instruction: behaviour.instruction().to_owned(),
        measure: Measure::Behaviour(behaviour),
        words: Vec::new(),
        chat: [list(behaviour.messages()), Vec::new()],
        plain: [Vec::new(), Vec::new()],
        partner: None,
    };
    Ok(Behaviour::ALL.into_iter().filter(wanted).map(task).collect())
}

/// What users wished for, in two words, when they tried; and words or a detector that tell whether it came. No wish holds a
/// word of its own list.
const WISHES: [(&str, &str); 13] = [
    (
        "ocean ships",
        "sea sail sailed sailing sailor sailors captain crew wave waves harbor port shore island coast voyage fish \
        water deck boat boats beach anchor",
    ),
    (
        "space rockets",
        "moon planet planets star stars astronaut astronauts orbit galaxy mars earth launch launched spaceship \
        spacecraft nasa universe alien aliens satellite",
    ),
    (
        "cooking",
        "recipe recipes kitchen chef dish dishes meal meals food oven ingredient ingredients bake baked delicious flavor \
        flavors soup bread dinner taste restaurant",
    ),
    (
        "weddings",
        "bride groom marriage married marry ceremony vows ring rings guests bouquet husband wife couple reception love \
        church dress honeymoon",
    ),
    ("positive sentiment", "=cheerful"),
    ("angry", "=angry"),
    ("French language", "=french france paris"),
    (
        "dinosaurs",
        "fossil fossils extinct extinction prehistoric rex jurassic cretaceous reptile reptiles species creature \
        creatures million tyrannosaurus triceratops bones herbivore carnivore",
    ),
    ("poetry rhymes", "=rhyming poem poems poet poets verse verses stanza stanzas lines words"),
    (
        "formal legal style",
        "=formal law laws court contract agreement party parties pursuant hereby rights clause statute",
    ),
    (
        "wedding bride groom marriage",
        "married marry ceremony vows ring rings guests bouquet husband wife couple reception love \
        church dress honeymoon family",
    ),
    (
        "sea ocean ship sailors",
        "sail sailed sailing captain crew wave waves harbor port shore island coast voyage fish water deck \
        boat boats beach anchor",
    ),
    (
        "food meal cooking kitchen",
        "recipe recipes chef dish dishes oven ingredient ingredients bake baked delicious flavor flavors \
        soup bread dinner taste restaurant eat",
    ),
];

/// The wishes, on the one message that they were tried with.
pub(super) fn wishes() -> Vec<Task> {
    let task = |(wish, signs): &(&str, &str)| {
        let (detector, words) = match signs.strip_prefix('=') {
            Some(rest) => rest.split_once(' ').unwrap_or((rest, "")),
            None => ("", *signs),
        };
        let words = words.split_whitespace().map(str::to_owned).collect();
        Task {
            name: (*wish).to_owned(),
            instruction: tiller::choose::learn::instruction(wish),
            measure: Measure::Wish(Behaviour::from_name(detector), words),
            words: Vec::new(),
            chat: [list(&["Tell me a short story."]), Vec::new()],
            plain: [Vec::new(), Vec::new()],
            partner: None,
        }
    };
    WISHES.iter().map(task).collect()
}

/// A wish came if so many of its words are in the text, and more than in the unsteered one; or so much of its behaviour.
const CAME: (f64, f64) = (3.0, 0.4);

impl Task {
    /// Whether a wish came, in a text and not in the unsteered one.
    pub(super) fn came(&self, text: &str, unsteered: &str) -> bool {
        let Measure::Wish(behaviour, words) = &self.measure else { return false };
        let said = [text, unsteered].map(|text| hits(text, words) as f64);
        let shown = [text, unsteered].map(|text| behaviour.map_or(0.0, |behaviour| behaviour.score(text)));
        (said[0] >= CAME.0 && said[0] > said[1]) || (shown[0] >= CAME.1 && shown[0] > shown[1])
    }

    /// Prompts that score.
    pub(super) fn prompts(&self, setting: Setting) -> &[String] {
        match setting {
            Setting::Chat | Setting::Later => &self.chat[0],
            Setting::Plain => &self.plain[0],
        }
    }

    /// Prompts to search a strength on.
    pub(super) fn search_prompts(&self, setting: Setting) -> &[String] {
        match setting {
            Setting::Chat | Setting::Later => &self.chat[1],
            Setting::Plain => &self.plain[1],
        }
    }

    /// Held-out words of a text, or what the detector says of it.
    pub(super) fn score(&self, text: &str) -> f64 {
        match &self.measure {
            Measure::Words(words) => hits(text, words) as f64,
            Measure::Behaviour(behaviour) => behaviour.score(text),
            Measure::Wish(behaviour, words) => hits(text, words) as f64 + behaviour.map_or(0.0, |b| b.score(text)),
        }
    }

    /// The name under which a method's record is kept: concepts have the same prompts, and so the same unsteered texts.
    pub(super) fn kept_as(&self, method: Method) -> &str {
        if method == Method::Unsteered && self.is_concept() { "every concept" } else { &self.name }
    }

    pub(super) fn is_concept(&self) -> bool {
        matches!(self.measure, Measure::Words(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_that_score_are_known_to_nothing_else_and_hold_no_word_of_a_concept() {
        let suite = concepts::Suite::built_in().unwrap();
        let all: Vec<&str> = CHAT.iter().chain(&CHAT_SEARCH).copied().collect();
        let learned: Vec<&str> = tiller::choose::learn::messages().collect();
        for task in concepts(&suite) {
            for prompt in task.chat.iter().chain(&task.plain).flatten() {
                let words: Vec<String> = task.words.clone();
                assert!(task.score(prompt) == 0.0 && hits(prompt, &words) == 0, "{}: {prompt}", task.name);
            }
        }
        for behaviour in Behaviour::ALL {
            assert!(behaviour.messages().iter().all(|m| !learned.contains(m)), "{}", behaviour.name());
        }
        let mut seen = std::collections::HashSet::new();
        assert!(all.iter().all(|prompt| seen.insert(*prompt) && !learned.contains(prompt)), "{all:?}");
    }

    #[test]
    fn wishes_come_by_words_that_they_do_not_hold() {
        let all = wishes();
        for task in &all {
            let Measure::Wish(behaviour, words) = &task.measure else { unreachable!() };
            assert!(hits(&task.name, words) == 0 && (behaviour.is_some() || words.len() > 10), "{}", task.name);
        }
        let sea = "The captain told the crew to sail to an island.";
        assert!(
            all[0].came(sea, "A story.") && !all[0].came("The captain slept.", "A story.") && !all[0].came(sea, sea)
        );
        assert!(all[6].came("Le chat est dans la maison avec les enfants.", "The cat is in the house."));
    }

    #[test]
    fn behaviours_are_taken_by_name() {
        assert_eq!(behaviours(&[]).unwrap().len(), 8);
        let some = behaviours(&["french".into(), "short".into()]).unwrap();
        assert_eq!(some.iter().map(|task| task.name.as_str()).collect::<Vec<_>>(), ["french", "short"]);
        assert!(behaviours(&["sad".into()]).is_err());
    }
}
