//! Long texts that Debian ships as HTML.

use super::archive::{Archive, decode};
use super::corpus::Document;
use super::markup::{self, Do};
use super::prose::pieces;
use tiller::Result;

/// Shorter paragraphs of these pages are headings, menus and captions.
const PROSE: usize = 60;

/// An Anarchist FAQ.
pub(super) fn anarchism(archive: &Archive) -> Result<Vec<Document>> {
    pages(archive, &|name| name.contains("/anarchism/html/"), &markup::html)
}

/// The Debian Administrator's Handbook, in English, without its index and its navigation.
pub(super) fn handbook(archive: &Archive) -> Result<Vec<Document>> {
    let page = |name: &str| name.contains("/html/en-US/") && !name.contains("/ix");
    let rule = |name: &str, attributes: &str| match name {
        "ul" if attributes.contains("docnav") => Do::Drop,
        "div" if attributes.contains("class=\"toc\"") => Do::Drop,
        _ => markup::html(name, attributes),
    };
    pages(archive, &page, &rule)
}

fn pages(archive: &Archive, page: &dyn Fn(&str) -> bool, rule: &dyn Fn(&str, &str) -> Do) -> Result<Vec<Document>> {
    let files = archive.files(&|name| name.ends_with(".html") && page(name))?;
    let documents = files.into_iter().flat_map(|(_, bytes)| {
        let mut paragraphs = markup::paragraphs(&decode(bytes), rule);
        paragraphs.retain(|paragraph| paragraph.len() > PROSE);
        pieces(paragraphs)
    });
    Ok(documents.map(Document::Text).collect())
}
