//! Dictionaries and encyclopedias.

use super::archive::{Archive, decode};
use super::client::{self, Tools};
use super::corpus::{Document, shuffle};
use super::markup::{entities, wikitext, without};
use super::prose::{gather, pieces, unwrap};
use flate2::read::MultiGzDecoder;
use std::io::{Read, Write};
use std::process::Stdio;
use tiller::{Error, Result};

/// The entries of a dictd dictionary, compressed with dictzip, which gunzip reads: a head line at the margin, its text
/// indented below.
fn dictd(archive: &Archive, file: &str) -> Result<Vec<(String, String)>> {
    let mut bytes = Vec::new();
    let packed = archive.file(file)?;
    MultiGzDecoder::new(&packed[..]).read_to_end(&mut bytes).map_err(|e| archive.malformed(format!("{file}: {e}")))?;
    let mut entries: Vec<(String, String)> = Vec::new();
    for line in decode(bytes).lines() {
        match entries.last_mut() {
            Some((_, text)) if line.is_empty() || line.starts_with(' ') => {
                text.push_str(line);
                text.push('\n');
            }
            _ => entries.push((line.to_owned(), String::new())),
        }
    }
    Ok(entries)
}

/// The Collaborative International Dictionary of English (Webster 1913 and WordNet), entries in random order.
pub(super) fn gcide(archive: &Archive) -> Result<Vec<Document>> {
    let mut entries: Vec<String> =
        dictd(archive, "/gcide.dict.dz")?.iter().filter_map(|(head, text)| definition(head, text)).collect();
    shuffle(&mut entries, "gcide entries");
    Ok(gather(entries, "\n\n", 1700).into_iter().map(Document::Text).collect())
}

/// `word: definition`, without pronunciation, etymology and sources; nothing for entries with letters that the
/// dictionary could not encode or of odd length.
fn definition(head: &str, text: &str) -> Option<String> {
    let word = head.split_once(" \\")?.0;
    let text = without(&text.replace("[ae]", "æ").replace("[oe]", "œ"), "[", "]").replace(['{', '}'], "");
    // A line that closes a quotation names its author: `--Goldsmith.`
    let author = |tail: &str| tail.len() < 40 && tail.starts_with(char::is_uppercase);
    let words: Vec<&str> = text
        .lines()
        .map(|line| line.rsplit_once("--").filter(|(_, tail)| author(tail)).map_or(line, |(line, _)| line))
        .flat_map(str::split_whitespace)
        .collect();
    let text = words.join(" ");
    // What is left of the head stands in front: a pronunciation in brackets, the part of speech.
    let text = match text.strip_prefix('(').and_then(|rest| rest.split_once(')')) {
        Some((inside, rest)) if inside.len() < 60 => rest.trim_start_matches(['.', ',', ' ']),
        _ => text.as_str(),
    };
    let whole = (120..1200).contains(&text.len()) && !text.contains(['?', '\\', '[', ']']);
    (whole && text.matches('"').count().is_multiple_of(2)).then(|| format!("{word}: {text}"))
}

/// The Jargon File.
pub(super) fn jargon(archive: &Archive) -> Result<Vec<Document>> {
    let mut documents = Vec::new();
    let mut current: Vec<String> = Vec::new();
    // The first entries describe the dictionary itself.
    for (head, text) in dictd(archive, "/jargon.dict.dz")?.iter().skip(5) {
        let mut paragraphs = unwrap(&text.replace(['{', '}'], ""));
        // A short paragraph is the pronunciation and the part of speech; drawn tables are no prose.
        paragraphs.retain(|paragraph| paragraph.len() > 30 && !paragraph.contains(['─', '│']));
        let Some(first) = paragraphs.first_mut() else { continue };
        *first = format!("{head}: {first}");
        let sizes = |paragraphs: &[String]| paragraphs.iter().map(String::len).sum::<usize>();
        if sizes(&current) + sizes(&paragraphs) > 2000 {
            documents.extend(pieces(current.drain(..)));
        }
        current.extend(paragraphs);
    }
    documents.extend(pieces(current));
    Ok(documents.into_iter().map(Document::Text).collect())
}

/// The glosses of WordNet in file order, where related senses stand together: `words: gloss; "example"` a line.
pub(super) fn wordnet(archive: &Archive) -> Result<Vec<Document>> {
    let mut glosses = Vec::new();
    for part in ["noun", "verb", "adj", "adv"] {
        let text = archive.text(&format!("/wordnet/data.{part}"))?;
        glosses
            .extend(text.lines().filter(|line| !line.starts_with("  ")).filter_map(|line| gloss(line, part == "noun")));
    }
    Ok(gather(glosses, "\n", 1500).into_iter().map(Document::Text).collect())
}

/// One line of a WordNet data file: offset, file, type, number of words (hexadecimal), then word and sense number in
/// turn, pointers, and the gloss behind ` | `. Names without an example say little and are many: left out.
fn gloss(line: &str, noun: bool) -> Option<String> {
    let (data, gloss) = line.split_once(" | ")?;
    let gloss = gloss.trim();
    let fields: Vec<&str> = data.split(' ').collect();
    let count = usize::from_str_radix(fields.get(3)?, 16).ok()?;
    let word = |i: usize| Some(fields.get(4 + 2 * i)?.split('(').next()?.replace('_', " "));
    let words: Vec<String> = (0..count.min(3)).map_while(word).collect();
    let name = noun && words.first()?.starts_with(char::is_uppercase);
    (gloss.len() > 60 && (!name || gloss.contains('"'))).then(|| format!("{}: {gloss}", words.join(", ")))
}

/// Articles of the English Wikipedia of 2013: a MediaWiki dump, compressed with bzip2, which Python unpacks.
pub(super) fn wikipedia(archive: &Archive, tools: &Tools) -> Result<Vec<Document>> {
    let packed = archive.file("/enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2")?;
    let dump = bunzip2(&packed, tools)?;
    let mut documents = Vec::new();
    for page in dump.split("<page>").skip(1) {
        let inside = |open: &str, close: &str| {
            let text = &page[page.find(open)? + open.len()..];
            Some(entities(&text[..text.find(close)?]))
        };
        let (Some(title), Some(text)) =
            (inside("<title>", "</title>"), inside("<text xml:space=\"preserve\">", "</text>"))
        else {
            continue;
        };
        if text.len() < 1500 || text.to_ascii_lowercase().starts_with("#redirect") {
            continue;
        }
        let lines = wikitext(&text);
        if lines.iter().map(String::len).sum::<usize>() >= 800 {
            documents.extend(pieces(std::iter::once(title).chain(lines)));
        }
    }
    Ok(documents.into_iter().map(Document::Text).collect())
}

/// Unpacks bzip2 with Python, which is there: its pip brought the file.
fn bunzip2(packed: &[u8], tools: &Tools) -> Result<String> {
    let name = tools.python()?;
    let failed = |e: std::io::Error| Error::io("unpack bzip2 with", std::path::Path::new(name), e);
    let program = "import bz2, sys; sys.stdout.buffer.write(bz2.decompress(sys.stdin.buffer.read()))";
    let mut child = client::python(name)
        .args(["-c", program])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(failed)?;
    // Python reads to the end before it writes, so neither side waits for the other.
    if let Some(mut input) = child.stdin.take() {
        input.write_all(packed).map_err(failed)?;
    }
    let output = child.wait_with_output().map_err(failed)?;
    if !output.status.success() {
        return Err(failed(std::io::Error::other(output.status.to_string())));
    }
    Ok(decode(output.stdout))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn definitions_lose_etymology_sources_and_authors() {
        let text = "   (k[o^]t), n. [OE. cot, cf. {Coat}. [x]]\n   1. A small house; a cottage or hut, such as shepherds and poor\n   people live in.\n      [1913 Webster]\n\n\
                    \n      The sheltered {cot}, the cultivated farm, and all the rest. --Goldsmith.\n";
        let wanted = "Cot: n. 1. A small house; a cottage or hut, such as shepherds and poor people live in. The sheltered cot, \
                      the cultivated farm, and all the rest.";
        assert_eq!(definition("Cot \\Cot\\ (k[o^]t), n.", text).unwrap(), wanted);
        assert!(definition("Cot \\Cot\\", "too short").is_none());
        assert!(definition("no pronunciation", text).is_none());
    }

    #[test]
    fn glosses_keep_words_and_examples() {
        let line = "03644378 06 n 03 lasso 0 cow_lariat(p) 0 riata 0 003 @ 04108268 n 0000 | a long noosed rope used to catch animals, of all kinds; \"he threw it\"  ";
        let wanted =
            "lasso, cow lariat, riata: a long noosed rope used to catch animals, of all kinds; \"he threw it\"";
        assert_eq!(gloss(line, true).unwrap(), wanted);
        assert!(gloss(&line.replace("lasso", "Lasso").replace('"', ""), true).is_none());
        assert!(gloss("no gloss", true).is_none());
        assert!(gloss("a b c zz | x", true).is_none());
    }
}
