//! Plain text: cleaned, in paragraphs, cut at their bounds into documents that a context of 512 tokens holds.

/// A document below this many bytes says too little to be worth its start.
const SHORTEST: usize = 200;
/// A document that has this much may end at the next paragraph.
const ENOUGH: usize = 1000;
/// A document ends rather than grow past this: about 500 tokens.
const FULL: usize = 2100;
/// A paragraph longer than this is cut between sentences.
const LONGEST: usize = 3000;

/// One line end, one blank between words, at most one empty line, and nothing that prints nothing.
pub(super) fn clean(text: &str) -> String {
    let mut lines: Vec<String> = Vec::new();
    for line in text.replace("\r\n", "\n").split(['\n', '\r']) {
        let line: String = line.chars().filter_map(printable).collect();
        let line = line.split(' ').filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ");
        if !(line.is_empty() && lines.last().is_none_or(String::is_empty)) {
            lines.push(line);
        }
    }
    while lines.last().is_some_and(String::is_empty) {
        lines.pop();
    }
    lines.join("\n")
}

/// The character as it is kept: blanks are spaces; control, format, private and replacement characters go.
fn printable(c: char) -> Option<char> {
    match c {
        '\t' | '\u{a0}' | '\u{2000}'..='\u{200a}' | '\u{202f}' | '\u{3000}' | '\u{85}' | '\u{b}' | '\u{c}' => Some(' '),
        c if c.is_control() => None,
        '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' => None,
        '\u{fff0}'..='\u{fffd}' | '\u{e000}'..='\u{f8ff}' | '\u{f0000}'.. => None,
        c => Some(c),
    }
}

/// The paragraphs of text that is broken at the width of a page and has empty lines between paragraphs.
pub(super) fn unwrap(text: &str) -> Vec<String> {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let paragraphs = lines.split(|line| line.is_empty()).map(|lines| clean(&lines.join(" ")));
    paragraphs.filter(|paragraph| !paragraph.is_empty()).collect()
}

/// Documents of whole paragraphs, about [`ENOUGH`] to [`FULL`] bytes each.
pub(super) fn pieces<S: AsRef<str>>(paragraphs: impl IntoIterator<Item = S>) -> Vec<String> {
    let mut documents: Vec<String> = Vec::new();
    let mut current = String::new();
    for paragraph in paragraphs {
        let paragraph = clean(paragraph.as_ref());
        let parts = if paragraph.len() > LONGEST { sentences_up_to(&paragraph, FULL) } else { vec![paragraph] };
        for part in parts.into_iter().filter(|part| !part.is_empty()) {
            let together = current.len() + part.len();
            if !current.is_empty() && ((current.len() >= ENOUGH && together > FULL) || together > LONGEST) {
                documents.push(std::mem::take(&mut current));
            }
            if !current.is_empty() {
                current.push_str("\n\n");
            }
            current.push_str(&part);
        }
    }
    match documents.last_mut() {
        Some(last) if current.len() < 2 * SHORTEST && last.len() + current.len() < LONGEST => {
            if !current.is_empty() {
                last.push_str("\n\n");
                last.push_str(&current);
            }
        }
        _ => documents.push(current),
    }
    documents.retain(|document| (SHORTEST..2 * LONGEST).contains(&document.len()));
    documents
}

/// Entries joined with `between` into documents of up to `limit` bytes; none is cut.
pub(super) fn gather<S: AsRef<str>>(entries: impl IntoIterator<Item = S>, between: &str, limit: usize) -> Vec<String> {
    let mut documents: Vec<String> = Vec::new();
    for entry in entries {
        let entry = entry.as_ref();
        match documents.last_mut() {
            Some(last) if last.len() + entry.len() <= limit => {
                last.push_str(between);
                last.push_str(entry);
            }
            _ => documents.push(entry.to_owned()),
        }
    }
    documents.retain(|document| document.len() >= SHORTEST);
    documents
}

/// Runs of whole sentences of up to `limit` bytes; a longer sentence stands alone.
fn sentences_up_to(paragraph: &str, limit: usize) -> Vec<String> {
    let mut parts: Vec<String> = Vec::new();
    for sentence in sentences(paragraph) {
        match parts.last_mut() {
            Some(last) if last.len() + sentence.len() <= limit => {
                last.push(' ');
                last.push_str(sentence);
            }
            _ => parts.push(sentence.to_owned()),
        }
    }
    parts
}

/// Cuts after `.`, `!`, `?` or `;` where a capital letter, a quotation mark or a bracket follows the blank.
fn sentences(text: &str) -> Vec<&str> {
    let (mut found, mut start) = (Vec::new(), 0);
    let mut last = ' ';
    for (at, c) in text.char_indices() {
        if c.is_whitespace() && matches!(last, '.' | '!' | '?' | ';') {
            let next = text[at..].trim_start().chars().next();
            if next.is_some_and(|c| c.is_uppercase() || matches!(c, '"' | '\'' | '“' | '‘' | '(')) {
                found.push(text[start..at].trim());
                start = at;
            }
        }
        last = c;
    }
    found.push(text[start..].trim());
    found.retain(|sentence| !sentence.is_empty());
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clean_keeps_words_and_paragraphs_and_nothing_else() {
        assert_eq!(clean(" a\u{a0} b\t\tc \r\n\r\n\r\n\u{1}d\u{200b}e\u{ad}\r"), "a b c\n\nde");
        assert_eq!(clean("\u{feff}\n\n"), "");
    }

    #[test]
    fn unwrap_joins_lines_into_paragraphs() {
        assert_eq!(unwrap("a\nb\n\n  \nc \n d\n"), ["a b", "c d"]);
    }

    #[test]
    fn pieces_keep_paragraphs_whole_and_lose_no_word() {
        let paragraphs: Vec<String> = (0..40).map(|i| format!("p{i} {}", "word ".repeat(90 + i))).collect();
        let documents = pieces(&paragraphs);
        assert_eq!(documents.join("\n\n"), paragraphs.iter().map(|p| p.trim()).collect::<Vec<_>>().join("\n\n"));
        assert!(documents.len() > 5);
        assert!(documents.iter().rev().skip(1).all(|d| d.len() >= ENOUGH && d.len() <= LONGEST), "sizes");
    }

    #[test]
    fn a_long_paragraph_is_cut_between_sentences() {
        let paragraph = "It is said by e.g. him that this holds. ".repeat(200);
        let documents = pieces([paragraph]);
        assert!(documents.len() > 3);
        assert!(documents.iter().all(|d| d.starts_with("It is") && d.ends_with("holds.") && d.len() < LONGEST));
    }

    #[test]
    fn scraps_are_dropped() {
        assert!(pieces(["too short"]).is_empty());
        assert!(gather(["short"], "\n", 100).is_empty());
        assert_eq!(gather(["a".repeat(150), "b".repeat(150), "c".repeat(150)], "\n", 310).len(), 1);
    }
}
