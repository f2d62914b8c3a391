//! Speeches, novels, tales and the Bible.

use super::archive::{Archive, decode};
use super::corpus::Document;
use super::markup::{self, Do};
use super::press::delimited;
use super::prose::{clean, pieces, unwrap};
use flate2::bufread::ZlibDecoder;
use std::io::Read;
use tiller::Result;

/// The addresses of the presidents of the United States on the state of the Union: a file each, a line a paragraph.
pub(super) fn speeches(archive: &Archive) -> Result<Vec<Document>> {
    let files = archive.files(&|name| name.contains("/speeches/") && name.ends_with(".txt"))?;
    Ok(files.into_iter().flat_map(|(_, bytes)| pieces(decode(bytes).lines())).map(Document::Text).collect())
}

/// Jane Austen's novels: an R database whose records are a length (4 bytes, big endian) and a zlib stream of one
/// serialized character vector, a string a line of the book.
pub(super) fn austen(archive: &Archive) -> Result<Vec<Document>> {
    let database = archive.file("/data/Rdata.rdb")?;
    let (mut rest, mut documents) = (&database[..], Vec::new());
    while let Some(stream) = rest.get(4..).filter(|stream| !stream.is_empty()) {
        let (mut decoder, mut record) = (ZlibDecoder::new(stream), Vec::new());
        decoder.read_to_end(&mut record).map_err(|e| archive.malformed(format!("Rdata.rdb: bad zlib stream: {e}")))?;
        rest = stream.get(decoder.total_in() as usize..).unwrap_or_default();
        let Some(lines) = r_strings(&record) else { continue };
        let heading = |line: &String| {
            let upper = line.to_ascii_uppercase();
            line.len() < 30 && (upper.starts_with("CHAPTER") || upper.starts_with("VOLUME"))
        };
        let mut paragraphs = unwrap(&lines.join("\n"));
        paragraphs.retain(|paragraph| !heading(paragraph));
        documents.extend(pieces(paragraphs.iter().map(|p| p.replace('_', "").replace("--", "—"))));
    }
    Ok(documents.into_iter().map(Document::Text).collect())
}

/// R's type codes in its serialization format (XDR, version 3) for a character vector and for one string of it.
const R_CHARACTER_VECTOR: u32 = 16;
const R_STRING: u32 = 9;

/// The strings of a serialized character vector; none if the record is something else or damaged.
fn r_strings(record: &[u8]) -> Option<Vec<String>> {
    let word = |at: usize| -> Option<u32> { Some(u32::from_be_bytes(record.get(at..at + 4)?.try_into().ok()?)) };
    // "X\n", version, writer, reader, then the length of the native encoding's name and the name.
    if record.get(..2)? != b"X\n" || word(2)? != 3 {
        return None;
    }
    let mut at = 18usize.checked_add(usize::try_from(word(14)?).ok()?)?;
    if word(at)? & 0xff != R_CHARACTER_VECTOR {
        return None;
    }
    let count = word(at + 4)?;
    at += 8;
    let mut strings = Vec::new();
    for _ in 0..count {
        if word(at)? & 0xff != R_STRING {
            return None;
        }
        // A length of −1 is R's missing value.
        let length = usize::try_from(word(at + 4)?.cast_signed().max(0)).ok()?;
        strings.push(String::from_utf8_lossy(record.get(at + 8..at + 8 + length)?).into_owned());
        at += 8 + length;
    }
    Some(strings)
}

/// Moby-Dick.
pub(super) fn moby_dick(archive: &Archive) -> Result<Vec<Document>> {
    let mut paragraphs = unwrap(&archive.text("moby-dick/data/data.txt")?.replace('_', ""));
    paragraphs.retain(|paragraph| !paragraph.starts_with("CHAPTER "));
    Ok(pieces(paragraphs).into_iter().map(Document::Text).collect())
}

/// The tales of the brothers Grimm and of Andersen, translated: tables with a tale a row.
pub(super) fn tales(archive: &Archive) -> Result<Vec<Document>> {
    let mut documents = Vec::new();
    for (file, column) in [("/grimm-tales.tab", 3), ("/andersen.tab", 1)] {
        // Three lines of header: names, types, roles.
        for row in delimited(&archive.text(file)?, '\t').iter().skip(3) {
            if let Some(tale) = row.get(column) {
                documents.extend(pieces(tale.lines()));
            }
        }
    }
    Ok(documents.into_iter().map(Document::Text).collect())
}

/// The World English Bible: a SWORD module, which keeps each book as a zlib stream of OSIS markup; an index has the
/// stream's place, its length and the length of the text, 4 bytes each, little endian.
pub(super) fn bible(archive: &Archive) -> Result<Vec<Document>> {
    let mut documents = Vec::new();
    for testament in ["ot", "nt"] {
        let index = archive.file(&format!("/{testament}.bzs"))?;
        let streams = archive.file(&format!("/{testament}.bzz"))?;
        for entry in index.chunks_exact(12) {
            let word =
                |at: usize| u32::from_le_bytes([entry[at], entry[at + 1], entry[at + 2], entry[at + 3]]) as usize;
            let stream = streams.get(word(0)..word(0).saturating_add(word(4)));
            let mut book = Vec::new();
            match stream.map(|stream| ZlibDecoder::new(stream).read_to_end(&mut book)) {
                Some(Ok(_)) => {}
                _ => {
                    return Err(
                        archive.malformed(format!("{testament}.bzs: it points at no zlib stream of {testament}.bzz"))
                    );
                }
            }
            documents.extend(pieces(verses(&decode(book))));
        }
    }
    Ok(documents.into_iter().map(Document::Text).collect())
}

/// The paragraphs of a book in OSIS markup; the lines of a stanza are one paragraph, else poetry would be all breaks.
fn verses(osis: &str) -> Vec<String> {
    let rule = |name: &str, attributes: &str| match name {
        "note" | "title" => Do::Drop,
        "chapter" | "lg" => Do::Break,
        "div" | "milestone" if attributes.contains("type=\"x-p\"") => Do::Break,
        _ => Do::Pass,
    };
    // A line of poetry ends where its element does; nothing else in the markup parts its last word from the next.
    markup::paragraphs(&osis.replace("<l ", " <l "), &rule).iter().map(|paragraph| clean(paragraph)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r_strings_reads_a_character_vector_and_refuses_the_rest() {
        let mut record = b"X\n".to_vec();
        let words = |record: &mut Vec<u8>, words: &[u32]| words.iter().for_each(|w| record.extend(w.to_be_bytes()));
        words(&mut record, &[3, 0, 0, 5]);
        record.extend(b"UTF-8");
        words(&mut record, &[R_CHARACTER_VECTOR, 3, 0x40000 | R_STRING, 4]);
        record.extend(b"Emma");
        words(&mut record, &[R_STRING, 0, R_STRING, u32::MAX]);
        assert_eq!(r_strings(&record).unwrap(), ["Emma", "", ""]);
        for cut in 0..record.len() {
            assert!(r_strings(&record[..cut]).is_none(), "{cut}");
        }
        record[3 + 2] = 9;
        assert!(r_strings(&record).is_none());
    }

    #[test]
    fn osis_loses_notes_and_joins_poetry() {
        let osis = "<title>Psalm</title><div sID=\"g\" type=\"x-p\"/><w lemma=\"H1\">Praise</w> him<note>or <b>her</b></note>.\
                    <lg sID=\"a\"/><l level=\"1\" sID=\"b\"/>Line one<l eID=\"b\"/><l sID=\"c\"/>line two";
        assert_eq!(verses(osis), ["Praise him.", "Line one line two"]);
    }
}
