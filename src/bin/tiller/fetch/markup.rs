//! Text out of markup: HTML and XML, character references, wikitext.

/// What to do at a tag.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Do {
    /// Leave the tag out, keep what it encloses.
    Pass,
    /// Begin a new paragraph here.
    Break,
    /// Leave the element out with all that it encloses.
    Drop,
}

/// The text of HTML or XML as paragraphs. `rule` is asked at every opening tag with its name in lower case and its
/// attributes; a closing tag breaks where an opening one of that name without attributes would. Elements that are
/// dropped may nest; malformed markup gives odd text, never an error.
pub(super) fn paragraphs(markup: &str, rule: &dyn Fn(&str, &str) -> Do) -> Vec<String> {
    let mut text = String::with_capacity(markup.len());
    let mut dropped: Option<(String, usize)> = None;
    let mut rest = markup;
    while let Some(at) = rest.find('<') {
        if dropped.is_none() {
            plain(&rest[..at], &mut text);
        }
        rest = &rest[at..];
        if let Some(comment) = rest.strip_prefix("<!--") {
            rest = comment.find("-->").map_or("", |end| &comment[end + 3..]);
            continue;
        }
        let tagged = rest[1..].starts_with(|c: char| c.is_ascii_alphabetic() || matches!(c, '/' | '!' | '?'));
        if !tagged {
            if dropped.is_none() {
                text.push('<');
            }
            rest = &rest[1..];
            continue;
        }
        let Some(end) = rest.find('>') else {
            rest = "";
            break;
        };
        let tag = &rest[1..end];
        rest = &rest[end + 1..];
        let closing = tag.starts_with('/');
        let body = tag.trim_start_matches('/').trim_end_matches('/');
        let name_end =
            body.find(|c: char| !(c.is_alphanumeric() || matches!(c, ':' | '-' | '_'))).unwrap_or(body.len());
        let (name, attributes) = (body[..name_end].to_ascii_lowercase(), &body[name_end..]);
        if let Some((element, depth)) = &mut dropped {
            if *element == name && !tag.ends_with('/') {
                *depth = if closing { *depth - 1 } else { *depth + 1 };
            }
            if *depth == 0 {
                dropped = None;
            }
            continue;
        }
        match rule(&name, attributes) {
            Do::Break => text.push('\n'),
            Do::Drop if !closing && !tag.ends_with('/') => dropped = Some((name, 1)),
            Do::Drop | Do::Pass => {}
        }
    }
    if dropped.is_none() {
        plain(rest, &mut text);
    }
    let lines = text.split('\n').map(|line| super::prose::clean(&entities(line)));
    lines.filter(|line| !line.is_empty()).collect()
}

/// Text between tags: its line ends mean no more than blanks.
fn plain(part: &str, text: &mut String) {
    text.extend(part.chars().map(|c| if c == '\n' || c == '\r' { ' ' } else { c }));
}

/// The rule for HTML pages: blocks are paragraphs; scripts, tables, listings and notes' numbers are no prose.
pub(super) fn html(name: &str, _attributes: &str) -> Do {
    match name {
        "script" | "style" | "head" | "pre" | "table" | "sup" => Do::Drop,
        "p" | "div" | "h1" | "h2" | "h3" | "h4" | "h5" | "h6" | "li" | "ul" | "ol" | "dl" | "dt" | "dd" | "br"
        | "blockquote" | "hr" | "tr" | "td" => Do::Break,
        _ => Do::Pass,
    }
}

/// Named references that prose uses; the markup's own five come first.
const NAMED: &[(&str, char)] = &[
    ("amp", '&'),
    ("lt", '<'),
    ("gt", '>'),
    ("quot", '"'),
    ("apos", '\''),
    ("nbsp", ' '),
    ("thinsp", ' '),
    ("ensp", ' '),
    ("mdash", '—'),
    ("ndash", '–'),
    ("minus", '−'),
    ("hellip", '…'),
    ("lsquo", '‘'),
    ("rsquo", '’'),
    ("ldquo", '“'),
    ("rdquo", '”'),
    ("laquo", '«'),
    ("raquo", '»'),
    ("copy", '©'),
    ("reg", '®'),
    ("trade", '™'),
    ("pound", '£'),
    ("euro", '€'),
    ("cent", '¢'),
    ("sect", '§'),
    ("deg", '°'),
    ("middot", '·'),
    ("times", '×'),
    ("frac12", '½'),
    ("eacute", 'é'),
    ("egrave", 'è'),
    ("ecirc", 'ê'),
    ("agrave", 'à'),
    ("aacute", 'á'),
    ("acirc", 'â'),
    ("auml", 'ä'),
    ("ccedil", 'ç'),
    ("iacute", 'í'),
    ("icirc", 'î'),
    ("iuml", 'ï'),
    ("ntilde", 'ñ'),
    ("oacute", 'ó'),
    ("ocirc", 'ô'),
    ("ouml", 'ö'),
    ("uacute", 'ú'),
    ("uuml", 'ü'),
    ("szlig", 'ß'),
];

/// The longest reference that is looked for after an `&`.
const LONGEST_REFERENCE: usize = 10;

/// `text` with its character references replaced; unknown ones stay.
pub(super) fn entities(text: &str) -> String {
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('&') {
        result.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let end = rest.char_indices().take(LONGEST_REFERENCE).find(|&(_, c)| c == ';').map(|(end, _)| end);
        match end.and_then(|end| Some((reference(&rest[..end])?, end))) {
            Some((c, end)) => {
                result.push(c);
                rest = &rest[end + 1..];
            }
            None => result.push('&'),
        }
    }
    result.push_str(rest);
    result
}

fn reference(name: &str) -> Option<char> {
    match name.strip_prefix('#') {
        Some(number) => {
            let code = match number.strip_prefix(['x', 'X']) {
                Some(hex) => u32::from_str_radix(hex, 16),
                None => number.parse(),
            };
            code.ok().and_then(char::from_u32)
        }
        None => NAMED.iter().find(|(known, _)| *known == name).map(|&(_, c)| c),
    }
}

/// `text` without every part from `open` to the `close` that ends it; parts may nest.
pub(super) fn without(text: &str, open: &str, close: &str) -> String {
    let mut result = String::with_capacity(text.len());
    let (mut depth, mut rest) = (0usize, text);
    while let Some(c) = rest.chars().next() {
        if let Some(after) = rest.strip_prefix(open) {
            depth += 1;
            rest = after;
        } else if let Some(after) = rest.strip_prefix(close).filter(|_| depth > 0) {
            depth -= 1;
            rest = after;
        } else {
            if depth == 0 {
                result.push(c);
            }
            rest = &rest[c.len_utf8()..];
        }
    }
    result
}

/// Stands for a line end while markup that spans lines is taken out.
const LINE_END: &str = "␤";

/// The lines of prose of a wikitext page: no templates, tables, notes, pictures, headings, lists of links.
pub(super) fn wikitext(page: &str) -> Vec<String> {
    let page = without(&without(page, "{{", "}}"), "{|", "|}");
    let page = links(&page);
    let rule = |name: &str, _: &str| match name {
        "ref" | "math" | "gallery" | "table" | "code" | "source" | "timeline" => Do::Drop,
        _ => Do::Pass,
    };
    let mut lines = Vec::new();
    for line in page.lines() {
        let line = line.trim();
        if let Some(title) = line.strip_prefix("==").map(|title| title.trim_matches(['=', ' '])) {
            const TAIL: [&str; 7] =
                ["See also", "References", "External links", "Notes", "Further reading", "Bibliography", "Footnotes"];
            if !line.starts_with("===") && TAIL.contains(&title) {
                break;
            }
        }
        lines.push(line);
    }
    // Notes and comments may span lines, so line ends travel through the markup as a character of their own.
    let joined = lines.join(LINE_END).replace("'''", "").replace("''", "");
    let text = paragraphs(&joined, &rule).join(LINE_END);
    let prose =
        |line: &&str| line.len() >= 60 && !line.starts_with(['=', '|', '!', '{', '}']) && !line.contains("http");
    text.split(LINE_END)
        .map(str::trim)
        .filter(prose)
        .map(|line| line.trim_start_matches(['*', '#', ':', ';', ' ']).to_owned())
        .collect()
}

/// Wikitext with every link replaced by what a reader sees: nothing for pictures, categories and other languages.
fn links(text: &str) -> String {
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('[') {
        result.push_str(&rest[..at]);
        rest = &rest[at..];
        if let Some(inner) = rest.strip_prefix("[[") {
            let Some(end) = matching(inner) else {
                rest = inner;
                continue;
            };
            let link = &inner[..end];
            rest = &inner[end + 2..];
            let target = link.split(['|', '[']).next().unwrap_or_default();
            let hidden = target.split_once(':').is_some_and(|(space, _)| {
                let language = space.len() <= 12 && space.chars().all(|c| c.is_ascii_lowercase() || c == '-');
                !space.is_empty() && (language || ["File", "Image", "Category"].contains(&space))
            });
            if !hidden {
                let shown = link.split_once('|').map_or(link, |(_, shown)| shown);
                result.push_str(&links(shown));
            }
        } else {
            let outer = rest.strip_prefix("[http").and_then(|link| link.split_once(']'));
            match outer {
                Some((link, after)) => {
                    result.push_str(link.split_once(' ').map_or("", |(_, shown)| shown));
                    rest = after;
                }
                None => {
                    result.push('[');
                    rest = &rest[1..];
                }
            }
        }
    }
    result.push_str(rest);
    result
}

/// Where the `]]` is that ends a link whose inside starts here.
fn matching(inside: &str) -> Option<usize> {
    let (mut depth, mut at) = (1usize, 0);
    loop {
        let next = at + inside[at..].find(['[', ']'])?;
        let pair = &inside.as_bytes()[next..];
        if pair.starts_with(b"[[") {
            depth += 1;
            at = next + 2;
        } else if pair.starts_with(b"]]") {
            depth -= 1;
            if depth == 0 {
                return Some(next);
            }
            at = next + 2;
        } else {
            at = next + 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn html_becomes_paragraphs() {
        let page = "<head><title>x</title></head><body><p>One <b>bold</b>\nword<sup>1</sup>.</p><pre>code</pre>\
                    <!-- <p>no</p> --><div>A &lt;b&gt; &amp;amp; &#8212; &#x41;&unknown; &</div>tail<br/>end";
        assert_eq!(paragraphs(page, &html), ["One bold word.", "A <b> &amp; — A&unknown; &", "tail", "end"]);
    }

    #[test]
    fn dropped_elements_nest_and_may_stay_open() {
        let rule = |name: &str, attributes: &str| match name {
            "ul" if attributes.contains("nav") => Do::Drop,
            "p" => Do::Break,
            _ => Do::Pass,
        };
        let page = "a<ul class=\"nav\"><ul>x</ul>y</ul>b<p>c<ul class=\"nav\">never closed<ul/>";
        assert_eq!(paragraphs(page, &rule), ["ab", "c"]);
        assert_eq!(paragraphs("<", &rule), ["<"]);
        assert_eq!(paragraphs("1 < 2 <b>3</b> <", &rule), ["1 < 2 3 <"]);
        assert!(paragraphs("<a <!--", &rule).is_empty());
    }

    #[test]
    fn wikitext_becomes_lines_of_prose() {
        let line = "is a long enough line of prose to be kept by the filter, that is, sixty bytes";
        let page = format!(
            "{{{{box|{{{{x}}}}}}}}\n'''Topic''' [[File:a.png|thumb|with [[link]] in]]{line} [[Target|shown]]<ref name=a>\n\
             note</ref><ref name=b/> [http://x.y text]. [[fr:Sujet]]\n{{|\n| cell\n|}}\n== Part ==\nshort\n* [[Item]] {line}\n\
             == References ==\n{line}"
        );
        assert_eq!(wikitext(&page), [format!("Topic {line} shown text."), format!("Item {line}")]);
    }

    #[test]
    fn broken_wikitext_does_not_hang_or_panic() {
        for page in ["[[", "[[a", "[[a]", "]]", "[http", "{{", "{{a}", "}}", "<ref", "[[[[[]]", "[[a|é"] {
            wikitext(page);
        }
    }
}
