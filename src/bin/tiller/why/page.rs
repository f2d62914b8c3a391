//! A text in colours as one HTML file that needs nothing else.

use std::io::Write;
use std::path::Path;

use tiller::file::write_atomic;
use tiller::{Error, Result};

use super::reading::Reading;
use super::{Curve, Shown};

const HEAD: &str = "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>tiller why</title><style>\n\
    body{font:16px/1.7 system-ui,sans-serif;max-width:48rem;margin:2rem auto;padding:0 1rem}\n\
    p{white-space:pre-wrap;overflow-wrap:anywhere}h2{font-size:1rem;margin-top:2.5rem}sub{font-size:.6em;opacity:.6}\n\
    td,th{text-align:left;vertical-align:top;padding:.2rem 1rem .2rem 0;white-space:pre-line}\n\
    </style></head><body>\n";

pub(super) fn write(path: &Path, shown: &Shown, curves: &[Curve], readings: &[Reading]) -> Result<()> {
    let text = page(shown, curves, readings);
    write_atomic(path, |out| out.write_all(text.as_bytes()).map_err(|e| Error::io("write", path, e)))
}

fn page(shown: &Shown, curves: &[Curve], readings: &[Reading]) -> String {
    let mut page = HEAD.to_owned();
    for curve in curves {
        page += &format!("<h2>{}</h2>\n<p>", escape(&curve.title));
        for (i, piece) in shown.pieces.iter().enumerate() {
            let (level, text) = (curve.level(i), escape(piece));
            if level == 0 {
                page += &text;
                continue;
            }
            // The digit says it to those who do not see the colour.
            let (alpha, f) = (f32::from(level) / 10.0, curve.values[i]);
            page += &format!(
                "<span style=\"background:rgba(255,140,0,{alpha:.1})\" title=\"{f:.3}\">{text}<sub>{level}</sub></span>"
            );
        }
        page += "</p>\n";
    }
    page += "<h2>What the features mean</h2>\n<table><tr><th>feature</th><th>layer</th><th>means</th></tr>\n";
    for [feature, layer, means] in readings.iter().map(Reading::cells) {
        page +=
            &format!("<tr><td>{}</td><td>{}</td><td>{}</td></tr>\n", escape(&feature), escape(&layer), escape(&means));
    }
    page + "</table></body></html>\n"
}

/// Text as HTML shows it: no character of it is markup, and control characters are written out.
fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe += "&amp;",
            '<' => safe += "&lt;",
            '>' => safe += "&gt;",
            '"' => safe += "&quot;",
            '\'' => safe += "&#39;",
            '\n' | '\t' => safe.push(c),
            c if c.is_control() => safe.extend(c.escape_unicode()),
            c => safe.push(c),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_text_says_is_no_markup() {
        let shown =
            Shown { tokens: vec![1, 2, 3], pieces: ["<script>", " sea\u{1b}", "&\"'"].map(String::from).into() };
        let curve = Curve { title: "<b>".into(), features: vec![7], values: vec![0.0, 2.0, 1.0] };
        let page = page(&shown, &[curve], &[]);
        for part in [
            "&lt;script&gt;",
            "<h2>&lt;b&gt;</h2>",
            "&amp;&quot;&#39;",
            "sea\\u{1b}",
            "title=\"2.000\"",
            "<sub>9</sub>",
            "<sub>5</sub>",
        ] {
            assert!(page.contains(part), "{part}: {page}");
        }
        assert!(!page.contains("<script") && !page.contains("http") && !page.contains('\u{1b}'));
    }

    #[test]
    fn levels_are_shares_of_the_largest_value() {
        let curve = Curve { title: String::new(), features: vec![7], values: vec![0.0, 9.0, 0.1, 4.5, f32::NAN] };
        assert_eq!((0..6).map(|i| curve.level(i)).collect::<Vec<_>>(), [0, 9, 1, 5, 0, 0]);
        assert_eq!(curve.peaks(2), [(1, 9.0), (3, 4.5)]);
        let silent = Curve { title: String::new(), features: vec![7], values: vec![0.0; 3] };
        assert!((0..3).all(|i| silent.level(i) == 0) && silent.peaks(2).is_empty());
    }
}
