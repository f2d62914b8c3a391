//! News, debates, reviews, posts, dialogue and instructions: short texts that come in tables.

use super::archive::{Archive, decode, unzip};
use super::corpus::Document;
use super::markup::entities;
use super::prose::{clean, gather, pieces};
use flate2::read::GzDecoder;
use std::collections::HashSet;
use std::io::Read;
use tiller::Result;

/// The rows of a table whose fields are parted by `separator` and may be quoted with `"`, doubled to stand for itself.
pub(super) fn delimited(text: &str, separator: char) -> Vec<Vec<String>> {
    let (mut rows, mut row, mut field) = (Vec::new(), Vec::new(), String::new());
    let (mut quoted, mut chars) = (false, text.chars().peekable());
    while let Some(c) = chars.next() {
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                field.push('"');
            }
            '"' if quoted => quoted = false,
            '"' if field.is_empty() => quoted = true,
            c if quoted => field.push(c),
            '\r' if chars.peek() == Some(&'\n') => {}
            '\n' => {
                row.push(std::mem::take(&mut field));
                rows.push(std::mem::take(&mut row));
            }
            c if c == separator => row.push(std::mem::take(&mut field)),
            c => field.push(c),
        }
    }
    if !field.is_empty() || !row.is_empty() {
        row.push(field);
        rows.push(row);
    }
    rows
}

/// The rows below the header with the fields of the named columns, in that order; rows without them are left out.
fn columns<const N: usize>(table: &str, separator: char, names: [&str; N]) -> Option<Vec<[String; N]>> {
    let mut rows = delimited(table, separator).into_iter();
    let header = rows.next()?;
    let mut at = [0; N];
    for (place, name) in at.iter_mut().zip(names) {
        *place = header.iter().position(|field| field.trim_start_matches('\u{feff}') == name)?;
    }
    Some(rows.filter(|row| at.iter().all(|&i| i < row.len())).map(|row| at.map(|i| row[i].clone())).collect())
}

fn table<const N: usize>(archive: &Archive, zip: &str, csv: &str, names: [&str; N]) -> Result<Vec<[String; N]>> {
    let text = unzip(&archive.file(zip)?, csv).map_err(|e| archive.malformed(format!("{zip}: {e}")))?;
    columns(&text, ',', names).ok_or_else(|| archive.malformed(format!("{csv}: expected columns {names:?}")))
}

/// Newspaper articles of 2016 and 2017.
pub(super) fn news(archive: &Archive) -> Result<Vec<Document>> {
    let (mut seen, mut documents) = (HashSet::new(), Vec::new());
    for [title, text] in table(archive, "/en/NewsArticles.zip", "NewsArticles.csv", ["title", "text"])? {
        let text = repaired(&text);
        let start: String = text.chars().take(200).collect();
        // Agencies' articles occur under several titles.
        if text.len() >= 200 && seen.insert(start) {
            documents.extend(pieces(std::iter::once(title.as_str()).chain(text.lines())));
        }
    }
    Ok(documents.into_iter().map(Document::Text).collect())
}

/// These articles lost their curly quotes and dashes: each became `"?`. After a letter it most often was an apostrophe.
/// Runs of blanks were paragraphs; web addresses are no prose.
fn repaired(text: &str) -> String {
    let (mut result, mut last) = (String::with_capacity(text.len()), ' ');
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        if let Some(after) = rest.strip_prefix("\"?") {
            result.push_str(if last.is_ascii_alphabetic() { "' " } else { "\" " });
            rest = after;
            last = ' ';
        } else if rest.starts_with("http://") || rest.starts_with("https://") {
            rest = rest.find(char::is_whitespace).map_or("", |end| &rest[end..]);
        } else if rest.starts_with("   ") {
            result.push('\n');
            rest = rest.trim_start_matches(' ');
        } else {
            result.push(c);
            rest = &rest[c.len_utf8()..];
            last = c;
        }
    }
    clean(&result)
}

/// Radio news of 2001, an item a line.
pub(super) fn radio_news(archive: &Archive) -> Result<Vec<Document>> {
    Ok(archive.text("/lee_background.cor")?.lines().map(clean).map(Document::Text).collect())
}

/// Speeches in the House of Commons, without the chair's.
pub(super) fn debates(archive: &Archive) -> Result<Vec<Document>> {
    let rows = table(archive, "/parlspeech-v2-sample-houseofcommons.zip", "en.csv", ["chair", "text"])?;
    let said = rows.into_iter().filter(|[chair, text]| chair == "FALSE" && text.len() > 150);
    Ok(said.flat_map(|[_, text]| pieces([reencoded(&text)])).map(Document::Text).collect())
}

/// Some of these speeches are UTF-8 that was once taken for Windows-1252: the sequences that occur, put back.
fn reencoded(text: &str) -> String {
    const PAIRS: [(&str, &str); 9] = [
        ("â€œ", "“"),
        ("â€™", "’"),
        ("â€˜", "‘"),
        ("â€“", "–"),
        ("â€”", "—"),
        ("â€¦", "…"),
        ("Â£", "£"),
        ("Ã©", "é"),
        // The closing quote's last byte has no character there, so it is missing: every other pair must go first.
        ("â€", "”"),
    ];
    PAIRS.iter().fold(text.to_owned(), |text, (wrong, right)| text.replace(wrong, right))
}

/// What kind of snippets to read.
#[derive(Clone, Copy)]
enum Snippets {
    /// One after the other from the same text, whose number stands before `_`.
    Running(&'static str),
    /// Unrelated ones: twenty a document, a line each.
    Loose(&'static str),
}

pub(super) fn film_reviews(archive: &Archive) -> Result<Vec<Document>> {
    snippets(archive, Snippets::Loose("movieReviewSnippets_GroundTruth.txt"))
}

pub(super) fn product_reviews(archive: &Archive) -> Result<Vec<Document>> {
    snippets(archive, Snippets::Running("amazonReviewSnippets_GroundTruth.txt"))
}

pub(super) fn editorials(archive: &Archive) -> Result<Vec<Document>> {
    snippets(archive, Snippets::Running("nytEditorialSnippets_GroundTruth.txt"))
}

pub(super) fn tweets(archive: &Archive) -> Result<Vec<Document>> {
    snippets(archive, Snippets::Loose("tweets_GroundTruth.txt"))
}

/// Sentences rated by people, an `ID\tRATING\tSENTENCE` a line, in an archive inside the archive.
fn snippets(archive: &Archive, what: Snippets) -> Result<Vec<Document>> {
    let inner = archive.file("/hutto_ICWSM_2014.tar.gz")?;
    let file = match what {
        Snippets::Running(file) | Snippets::Loose(file) => file,
    };
    let mut tar = Vec::new();
    let unpacked = GzDecoder::new(&inner[..]).read_to_end(&mut tar);
    let found = unpacked.and_then(|_| super::archive::tar_files(&tar[..], &|name| name.ends_with(file)));
    let found = found.map_err(|e| archive.malformed(format!("hutto_ICWSM_2014.tar.gz: {e}")))?;
    let (_, bytes) = found.into_iter().next().ok_or_else(|| archive.malformed(format!("no file {file} in it")))?;
    let text = decode(bytes);
    let rows = text.lines().filter_map(|line| {
        let mut fields = line.splitn(3, '\t');
        let id = fields.next()?;
        let sentence = clean(&entities(fields.nth(1)?).replace("''", "\""));
        Some((id.split('_').next().unwrap_or(id), sentence))
    });
    let rows: Vec<(&str, String)> = rows.collect();
    let documents = match what {
        Snippets::Loose(_) => {
            let sentences: Vec<&str> = rows.iter().map(|(_, sentence)| sentence.as_str()).collect();
            sentences.chunks(20).map(|chunk| chunk.join("\n")).collect()
        }
        Snippets::Running(_) => {
            let texts: Vec<String> = rows
                .chunk_by(|a, b| a.0 == b.0)
                .flat_map(|text| {
                    let sentences: Vec<&str> = text.iter().map(|(_, sentence)| sentence.as_str()).collect();
                    gather_all(&sentences)
                })
                .collect();
            gather(texts, "\n\n", 2000)
        }
    };
    Ok(documents.into_iter().map(Document::Text).collect())
}

/// Sentences of one text in runs of up to 2,000 bytes, short ones too.
fn gather_all(sentences: &[&str]) -> Vec<String> {
    let mut runs: Vec<String> = Vec::new();
    for sentence in sentences {
        match runs.last_mut() {
            Some(run) if run.len() + sentence.len() < 2000 => {
                run.push(' ');
                run.push_str(sentence);
            }
            _ => runs.push((*sentence).to_owned()),
        }
    }
    runs
}

/// Scenes of a television series, `Name: words` a line.
pub(super) fn dialogue(archive: &Archive) -> Result<Vec<Document>> {
    let text = archive.text("/friends-transcripts.tab")?;
    let lines = text.lines().skip(3).filter_map(|line| {
        let fields: Vec<&str> = line.split('\t').collect();
        let said = clean(fields.get(5)?.trim_matches('"'));
        (!said.is_empty()).then(|| (fields[2].to_owned(), format!("{}: {said}", clean(fields[4]))))
    });
    let lines: Vec<(String, String)> = lines.collect();
    let episodes = lines.chunk_by(|a, b| a.0 == b.0);
    let documents = episodes.flat_map(|episode| gather(episode.iter().map(|(_, line)| line), "\n", 1900));
    Ok(documents.map(Document::Text).collect())
}

/// Posts to newsgroups, in lower case and without punctuation.
pub(super) fn newsgroups(archive: &Archive) -> Result<Vec<Document>> {
    let text = archive.text("/20newsgroups-train.tab")?;
    let posts = text.lines().skip(3).filter_map(|line| line.split_once('\t')).map(|(_, post)| clean(post));
    Ok(posts.filter(|post| (400..3000).contains(&post.len())).map(Document::Text).collect())
}

/// Instructions with an answer to each.
pub(super) fn instructions(archive: &Archive) -> Result<Vec<Document>> {
    #[derive(serde::Deserialize)]
    struct Pair {
        instruction: String,
        output: String,
    }
    let pairs: Vec<Pair> = serde_json::from_slice(&archive.file("/example/outputs.json")?)
        .map_err(|e| archive.malformed(format!("outputs.json: {e}")))?;
    let pairs = pairs.into_iter().map(|pair| (clean(&pair.instruction), clean(&pair.output)));
    Ok(pairs.filter(|(ask, answer)| !ask.is_empty() && !answer.is_empty()).map(|(a, b)| Document::Chat(a, b)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delimited_reads_quotes_line_ends_and_doubled_quotes() {
        let table = "a,b\r\n\"x, \"\"y\"\"\nz\",2\n,\"\"\nlast";
        let wanted: Vec<Vec<&str>> = vec![vec!["a", "b"], vec!["x, \"y\"\nz", "2"], vec!["", ""], vec!["last"]];
        assert_eq!(delimited(table, ','), wanted);
        assert_eq!(columns(table, ',', ["b", "a"]).unwrap()[0], ["2", "x, \"y\"\nz"]);
        assert!(columns(table, ',', ["c"]).is_none());
        assert!(delimited("", ',').is_empty());
    }

    #[test]
    fn text_decoded_wrongly_is_put_right() {
        assert_eq!(reencoded("â€œweâ€™veâ€\u{9d} Â£5 cafÃ©"), "“we’ve”\u{9d} £5 café");
    }

    #[test]
    fn quotes_that_an_encoding_ate_are_put_back() {
        assert_eq!(
            repaired("DeVos\"?vote,\"?she said at http://a.b/c now.   New"),
            "DeVos' vote,\" she said at now.\nNew"
        );
    }
}
