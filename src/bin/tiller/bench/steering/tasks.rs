//! What is asked for, on which prompts, and how a text is scored.

use tiller::eval::behaviours::Behaviour;
use tiller::eval::concepts::{self, hits};
use tiller::{Error, Result};

/// How prompts are put to the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Setting {
    /// Messages in the chat template.
    Chat,
    /// Beginnings of texts.
    Plain,
}

impl Setting {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::Plain => "plain",
        }
    }
}

/// How a text is scored.
pub(super) enum Measure {
    /// Words of a concept that nothing else knows.
    Words(Vec<String>),
    Behaviour(Behaviour),
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
    let task = |concept: &concepts::Concept| {
        // "Talk about sea" is no English.
        let the = if matches!(concept.name.as_str(), "sea" | "weather") { "the " } else { "" };
        Task {
            name: concept.name.clone(),
            instruction: format!("Talk about {the}{}.", concept.name),
            measure: Measure::Words(concept.held_out.clone()),
            words: concept.words.clone(),
            chat: [list(&CHAT), list(&CHAT_SEARCH)],
            plain: [suite.prompts.iter().take(CHAT.len()).cloned().collect(), suite.search_prompts.clone()],
        }
    };
    suite.concepts.iter().map(task).collect()
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
    };
    Ok(Behaviour::ALL.into_iter().filter(wanted).map(task).collect())
}

impl Task {
    /// Prompts that score.
    pub(super) fn prompts(&self, setting: Setting) -> &[String] {
        match setting {
            Setting::Chat => &self.chat[0],
            Setting::Plain => &self.plain[0],
        }
    }

    /// Prompts to search a strength on.
    pub(super) fn search_prompts(&self, setting: Setting) -> &[String] {
        match setting {
            Setting::Chat => &self.chat[1],
            Setting::Plain => &self.plain[1],
        }
    }

    /// Held-out words of a text, or what the detector says of it.
    pub(super) fn score(&self, text: &str) -> f64 {
        match &self.measure {
            Measure::Words(words) => hits(text, words) as f64,
            Measure::Behaviour(behaviour) => behaviour.score(text),
        }
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
    fn behaviours_are_taken_by_name() {
        assert_eq!(behaviours(&[]).unwrap().len(), 8);
        let some = behaviours(&["french".into(), "short".into()]).unwrap();
        assert_eq!(some.iter().map(|task| task.name.as_str()).collect::<Vec<_>>(), ["french", "short"]);
        assert!(behaviours(&["sad".into()]).is_err());
    }
}
