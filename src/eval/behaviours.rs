//! Behaviours that no list of topic words names, each with a detector that needs no judge: letters and words of a language,
//! lengths, code fences, words of a mood, ends of lines that rhyme.
//!
//! A detector gives a text a score from 0 (nothing of it) to 1. Scores of one behaviour compare texts with each other; scores
//! of two do not. The lists are ours and small (`behaviours.tsv`): they tell a text of hundred words, not a sentence.

use std::collections::{HashMap, HashSet};
use std::sync::OnceLock;

/// What a model can be told to be like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Behaviour {
    /// Formal language.
    Formal,
    /// An angry voice.
    Angry,
    /// A cheerful voice.
    Cheerful,
    /// French.
    French,
    /// Lines that rhyme.
    Rhyming,
    /// Very short answers.
    Short,
    /// No code, also where code is asked for.
    NoCode,
    /// The voice of a pirate.
    Pirate,
}

/// Neutral requests, which ask for no manner.
const NEUTRAL: [&str; 16] = [
    "Tell me about your day.",
    "What should I do this weekend?",
    "Describe a small village.",
    "How do plants grow?",
    "Tell me a short story.",
    "What do you think about mornings?",
    "How can I learn to draw?",
    "Describe your favorite meal.",
    "Why do people travel?",
    "What happened yesterday?",
    "Give me some advice about work.",
    "How does a clock work?",
    "Describe the weather today.",
    "What makes a good neighbor?",
    "Tell me about a walk in the park.",
    "What is a good way to start a letter?",
];
/// Requests that a model answers with code.
const CODE: [&str; 16] = [
    "How do I reverse a string in Python?",
    "Write a function that adds two numbers.",
    "How do I read a file line by line in Python?",
    "Show me a loop that counts to ten.",
    "How can I sort a list in JavaScript?",
    "Write a program that prints the even numbers below 20.",
    "How do I find the largest number in a list?",
    "Write a function that tells whether a word is a palindrome.",
    "How do I make a dictionary in Python?",
    "Show me how to define a class with two fields.",
    "How do I remove duplicates from a list?",
    "Write a function for the factorial of a number.",
    "How can I count the words of a text in Python?",
    "Write a query that selects all users older than 30.",
    "How do I join two strings in Java?",
    "Write a script that renames files.",
];

impl Behaviour {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Formal,
        Self::Angry,
        Self::Cheerful,
        Self::French,
        Self::Rhyming,
        Self::Short,
        Self::NoCode,
        Self::Pirate,
    ];

    /// Its name: `formal`, `angry`, `cheerful`, `french`, `rhyming`, `short`, `no_code`, `pirate`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Formal => "formal",
            Self::Angry => "angry",
            Self::Cheerful => "cheerful",
            Self::French => "french",
            Self::Rhyming => "rhyming",
            Self::Short => "short",
            Self::NoCode => "no_code",
            Self::Pirate => "pirate",
        }
    }

    /// The behaviour of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|behaviour| behaviour.name() == name)
    }

    /// What a model is told.
    pub fn instruction(self) -> &'static str {
        match self {
            Self::Formal => "Write in a very formal, official style.",
            Self::Angry => "Answer in a very angry and furious tone.",
            Self::Cheerful => "Answer in a very cheerful and happy tone.",
            Self::French => "Answer in French. Write only in French.",
            Self::Rhyming => "Answer as a poem with short lines that rhyme.",
            Self::Short => "Answer in one very short sentence.",
            Self::NoCode => "Never write code. Explain in plain words only.",
            Self::Pirate => "Talk like a pirate.",
        }
    }

    /// Messages on which it shows: neutral ones, or ones that ask for code.
    pub fn messages(self) -> &'static [&'static str] {
        if self == Self::NoCode { &CODE } else { &NEUTRAL }
    }

    /// How much of it a text has, 0 to 1. Of an empty text nothing can be said: 0.
    pub fn score(self, text: &str) -> f64 {
        let words = words(text);
        if words.is_empty() {
            return 0.0;
        }
        match self {
            Self::Formal => formal(text, &words),
            Self::Angry => up_to(list_share(&words, "angry") + marks(text, &words) / 4.0, 0.12),
            Self::Cheerful => {
                let against = list_share(&words, "angry");
                up_to(list_share(&words, "cheerful") + marks(text, &words) / 4.0 - against, 0.12)
            }
            Self::French => french(&words),
            Self::Rhyming => rhyming(text),
            // Ten words or fewer are very short; sixty and more are not short at all.
            Self::Short => (1.0 - (words.len() as f64 - 10.0) / 50.0).clamp(0.0, 1.0),
            Self::NoCode => 1.0 - code(text),
            Self::Pirate => up_to(list_share(&words, "pirate"), 0.12),
        }
    }
}

/// Words of a list for every word of the language; each list is read once.
fn lists() -> &'static HashMap<&'static str, HashSet<&'static str>> {
    static LISTS: OnceLock<HashMap<&'static str, HashSet<&'static str>>> = OnceLock::new();
    LISTS.get_or_init(|| {
        let lines = include_str!("behaviours.tsv").lines().filter(|line| !line.starts_with('#'));
        lines.filter_map(|line| line.split_once('\t')).map(|(name, words)| (name, words.split(' ').collect())).collect()
    })
}

/// The words of `text` in lower case, with straight apostrophes.
fn words(text: &str) -> Vec<String> {
    let inside = |c: char| c.is_alphanumeric() || c == '\'' || c == '’';
    let clean = |w: &str| w.trim_matches(['\'', '’']).to_lowercase().replace('’', "'");
    text.split(move |c: char| !inside(c)).map(clean).filter(|w| !w.is_empty()).collect()
}

/// The share of `words` that are in a list.
fn list_share(words: &[String], name: &str) -> f64 {
    let n = lists().get(name).map_or(0, |list| words.iter().filter(|word| list.contains(word.as_str())).count());
    n as f64 / words.len().max(1) as f64
}

/// `share` over `full`, within 0 and 1.
fn up_to(share: f64, full: f64) -> f64 {
    (share / full).clamp(0.0, 1.0)
}

/// Exclamation marks for each word.
fn marks(text: &str, words: &[String]) -> f64 {
    text.matches('!').count() as f64 / words.len().max(1) as f64
}

/// Formal words and long ones, less contractions, exclamations and casual words.
fn formal(text: &str, words: &[String]) -> f64 {
    let ends = ["'s", "n't", "'re", "'ll", "'ve", "'d", "'m"];
    let contracted = |word: &&String| ends.iter().any(|end| word.ends_with(end));
    let contracted = words.iter().filter(contracted).count() as f64 / words.len() as f64;
    let long = words.iter().filter(|word| word.chars().count() >= 8).count() as f64 / words.len() as f64;
    let against = contracted + list_share(words, "casual") + marks(text, words);
    up_to(list_share(words, "formal") + 0.2 * long - against, 0.12)
}

/// The share of French function words among French and English ones; words of both languages count for neither.
fn french(words: &[String]) -> f64 {
    let lists = lists();
    let (Some(french), Some(english)) = (lists.get("french"), lists.get("english")) else { return 0.0 };
    let count = |own: &HashSet<&str>, other: &HashSet<&str>| {
        words.iter().filter(|word| own.contains(word.as_str()) && !other.contains(word.as_str())).count() as f64
    };
    let (own, other) = (count(french, english), count(english, french));
    // A text of names and numbers has neither.
    if own + other < 2.0 { 0.0 } else { own / (own + other) }
}

/// The share of lines whose last word rhymes with that of one of the next two lines, or of one of the two before.
fn rhyming(text: &str) -> f64 {
    let ends: Vec<String> = text.lines().filter_map(|line| words(line).pop()).collect();
    if ends.len() < 2 {
        return 0.0;
    }
    let rhymed = |i: usize| {
        let near = ends.iter().enumerate().filter(|(j, _)| i.abs_diff(*j) <= 2 && i != *j);
        near.into_iter().any(|(_, other)| rhymes(&ends[i], other))
    };
    (0..ends.len()).filter(|&i| rhymed(i)).count() as f64 / ends.len() as f64
}

/// Whether two different words end alike: the last sound as it is spelt. Spelling misses "blue" and "shoe", and takes "love"
/// and "move" for a rhyme.
fn rhymes(a: &str, b: &str) -> bool {
    a != b && !a.is_empty() && rhyme(a) == rhyme(b)
}

/// From the last vowel that sounds to the end, with the consonants behind it; spellings of one sound are one.
fn rhyme(word: &str) -> String {
    let word: String = word.chars().filter(|c| c.is_alphabetic()).collect();
    let vowel = |c: char| "aeiouyáéíóúàèêëîïôùûü".contains(c);
    let letters: Vec<char> = word.chars().collect();
    let silent = |i: usize| {
        // A final e behind a consonant says how the vowel before it sounds; the word "the" has no other.
        letters[i] == 'e'
            && i + 1 == letters.len()
            && i >= 2
            && !vowel(letters[i - 1])
            && letters[..i - 1].iter().any(|&c| vowel(c))
    };
    let last = (0..letters.len()).rev().find(|&i| vowel(letters[i]) && !silent(i));
    let Some(last) = last else { return word };
    let start = (0..=last).rev().take_while(|&i| vowel(letters[i])).last().unwrap_or(last);
    let end: String = letters[start..].iter().collect();
    const ALIKE: [(&str, &str); 14] = [
        ("ight", "ite"),
        ("igh", "y"),
        ("ie", "y"),
        ("ye", "y"),
        ("ay", "ey"),
        ("eigh", "ey"),
        ("aid", "ade"),
        ("ain", "ane"),
        ("ea", "ee"),
        ("oa", "o"),
        ("ough", "o"),
        ("ew", "ue"),
        ("oo", "ue"),
        ("ow", "o"),
    ];
    let same = ALIKE.iter().find(|(spelt, _)| end == *spelt).map(|(_, as_if)| (*as_if).to_owned());
    same.unwrap_or(end)
}

/// 1 for a text with a code fence or two lines of code, half of that for one line.
fn code(text: &str) -> f64 {
    if text.contains("```") {
        return 1.0;
    }
    let is_code = |line: &str| {
        let line = line.trim();
        let starts = [
            "def ",
            "import ",
            "from ",
            "return ",
            "function ",
            "const ",
            "let ",
            "var ",
            "public ",
            "#include",
            "SELECT ",
            "print(",
        ];
        let (call, ends) = (line.contains("()") || line.contains(" = "), [";", "{", "}", "):", ")"]);
        starts.iter().any(|start| line.starts_with(start)) && line.contains(['(', '=', ';', '*', '"'])
            || call && ends.iter().any(|end| line.ends_with(end))
    };
    (text.lines().filter(|line| is_code(line)).count() as f64 / 2.0).min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Texts of each behaviour, and plain ones.
    const SHOWN: [(Behaviour, &str); 8] = [
        (
            Behaviour::Formal,
            "Dear Sir or Madam, I hereby wish to inform you that, pursuant to your request, the aforementioned documents have \
             been attached. Should you require further assistance, please do not hesitate to contact the undersigned.",
        ),
        (
            Behaviour::Angry,
            "I have had ENOUGH! This is absolutely ridiculous and outrageous! You stupid, useless idiots wasted my whole day \
             and I am furious!",
        ),
        (
            Behaviour::Cheerful,
            "What a wonderful day! I am so happy and excited to share this joyful news with you, my lovely friends! The sunshine \
             makes me smile!",
        ),
        (
            Behaviour::French,
            "Il était une fois, dans un petit village, une jeune fille qui aimait beaucoup les livres. Elle passait ses jours à \
             lire avec son père.",
        ),
        (
            Behaviour::Rhyming,
            "The moon was shining in the night,\nIt filled the valley with its light,\nThe river ran toward the sea,\nAnd sang \
             its quiet song to me.",
        ),
        (Behaviour::Short, "Plants grow with water and light."),
        (
            Behaviour::NoCode,
            "To reverse a string, start at its last letter and write every letter down until you reach the first one.",
        ),
        (
            Behaviour::Pirate,
            "Ahoy, matey! Arr, me ship sailed the seven seas for treasure and rum, and ye best not cross me crew or ye'll walk \
             the plank!",
        ),
    ];
    const PLAIN: &str = "I woke up at seven and made some coffee. Then I walked to the office, where we had a meeting about the \
                         new schedule. After lunch I answered a few letters and went home, because it had started to rain. In \
                         the evening I read a book about the history of the town and went to bed early.";
    const CODE: &str = "You can use slicing:\n\n```python\ntext = \"hello\"\nprint(text[::-1])\n```\n";

    #[test]
    fn each_detector_knows_its_own_text_from_plain_ones_and_from_the_others() {
        for (behaviour, text) in SHOWN {
            let (own, plain) =
                (behaviour.score(text), behaviour.score(if behaviour == Behaviour::NoCode { CODE } else { PLAIN }));
            assert!(own >= 0.6, "{}: {own:.2}", behaviour.name());
            assert!(plain <= 0.25, "{}: plain {plain:.2}", behaviour.name());
            let quiet = [Behaviour::Short, Behaviour::NoCode];
            for (other, text) in
                SHOWN.into_iter().filter(|(other, _)| *other != behaviour && !quiet.contains(&behaviour))
            {
                let score = behaviour.score(text);
                assert!(score < own, "{} in a text that is {}: {score:.2}", behaviour.name(), other.name());
            }
        }
    }

    #[test]
    fn rhymes_are_ends_that_are_spelt_alike() {
        for (a, b) in
            [("night", "light"), ("sea", "tree"), ("day", "grey"), ("shade", "paid"), ("song", "long"), ("sky", "pie")]
        {
            assert!(rhymes(a, b), "{a} {b}: {} {}", rhyme(a), rhyme(b));
        }
        for (a, b) in [("night", "day"), ("sea", "sky"), ("home", "house"), ("stone", "stand"), ("light", "light")] {
            assert!(!rhymes(a, b), "{a} {b}: {} {}", rhyme(a), rhyme(b));
        }
        assert_eq!(Behaviour::Rhyming.score("One line of prose, which rhymes with nothing."), 0.0);
    }

    #[test]
    fn code_is_seen_without_fences_too() {
        assert_eq!(Behaviour::NoCode.score(CODE), 0.0);
        assert_eq!(Behaviour::NoCode.score("def add(a, b):\n    return (a + b)\n"), 0.0);
        assert_eq!(Behaviour::NoCode.score("for (int i = 0; i < 3; i++) {\n  sum = sum + i;\n}"), 0.0);
        assert_eq!(Behaviour::NoCode.score("Let us import the idea from France (it works there)."), 1.0);
        assert_eq!(Behaviour::NoCode.score(PLAIN), 1.0);
    }

    #[test]
    fn a_long_text_is_not_short_and_an_empty_one_is_nothing() {
        let long = "word ".repeat(80);
        assert_eq!((Behaviour::Short.score(&long), Behaviour::Short.score("Yes.")), (0.0, 1.0));
        for behaviour in Behaviour::ALL {
            assert_eq!(behaviour.score(" \n"), 0.0, "{}", behaviour.name());
            assert_eq!(Behaviour::from_name(behaviour.name()), Some(behaviour));
            let mut seen = HashSet::new();
            assert!(behaviour.messages().len() >= 16 && behaviour.messages().iter().all(|m| seen.insert(*m)));
        }
        assert_eq!(Behaviour::from_name("sad"), None);
    }

    #[test]
    fn lists_hold_single_words_once() {
        assert_eq!(lists().len(), 7);
        for line in include_str!("behaviours.tsv").lines().filter(|line| !line.starts_with('#')) {
            let (name, all) = line.split_once('\t').unwrap();
            let mut seen = HashSet::new();
            for word in all.split(' ') {
                assert!(seen.insert(word) && words(word) == [word], "{name}: {word:?}");
            }
        }
    }
}
