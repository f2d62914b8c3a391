//! Two models, or one at two places, read the same text.

use std::path::Path;
use std::time::Instant;

use super::correlation::Codes;
use super::pairing::{Cut, Place, pieces, token_by_token, word_by_word};
use super::report::{Report, Side};
use super::request::Request;
use super::subspace::Category;
use super::tally::Tally;
use super::tokens::{Item, Texts};
use crate::dictionary::Dictionary;
use crate::engine::{Document, Engine, Options, documents};
use crate::error::{Error, Result};
use crate::eval::sinks::Sinks;
use crate::hook_point::HookPoint;
use crate::model::Model;
use crate::num::parallel::count;
use crate::progress::{Progress, report};

/// Pairs of tokens that are read, encoded and added at once.
const BLOCK: usize = 2048;
/// Shorter pieces are not cut once more.
const SHORTEST: usize = 64;

/// Compares the features of two dictionaries on their models.
///
/// Costs one early-stopped pass of each model over the text, L0_A·L0_B additions a pair of tokens, 8 bytes for every
/// pair of features, and `runs` comparisons of decoder rows. Progress counts pairs of tokens first, then runs.
///
/// # Errors
/// As [`Request::check`]; what opening models, dictionaries and text returns; [`Mismatch`](crate::Kind::Mismatch) if a
/// dictionary does not belong to its model; [`Argument`](crate::Kind::Argument) if it does not say where it reads and
/// the request does not, and if the text has too few tokens; [`Unsupported`](crate::Kind::Unsupported) if the
/// correlations take more than the memory allowed; [`Cancelled`](crate::Kind::Cancelled).
pub fn universality(request: &Request, progress: &mut Progress<'_>) -> Result<Report> {
    let start = Instant::now();
    request.check()?;
    let categories = request.categories.as_deref().map_or_else(Category::built_in, Category::load)?;
    let dictionaries = [Dictionary::open(&request.dictionary_a)?, Dictionary::open(&request.dictionary_b)?];
    let points = [
        point(&dictionaries[0], request.layer_a, &request.dictionary_a)?,
        point(&dictionaries[1], request.layer_b, &request.dictionary_b)?,
    ];
    let most = request.memory.saturating_mul(1 << 20);
    let sizes = [dictionaries[0].n_features(), dictionaries[1].n_features()];
    let tally = Tally::new(sizes, most)?;
    let documents = documents(&request.text)?;
    let (reader, notes) = Reader::open(request, &dictionaries, points)?;
    let mut reading = Reading::new(request, reader, &dictionaries, tally);
    for document in &documents {
        if reading.read(&text(document), progress)? {
            break;
        }
    }
    reading.add_block(progress)?;
    let Reading { tally, reader, left_out, sinks, .. } = reading;
    let same_tokenizer = reader.same;
    // The models' memory is free before the comparison takes its own.
    drop(reader);
    if tally.n_tokens() < 2 {
        return Err(Error::argument("text: expected at least two pairs of tokens, found fewer"));
    }
    let rows = |side: usize| {
        let dictionary = &dictionaries[side];
        move |ids: &[u32]| {
            let mut rows = vec![0f32; ids.len() * dictionary.d_out()];
            let each = rows.chunks_exact_mut(dictionary.d_out()).zip(ids);
            each.for_each(|(row, &id)| dictionary.decoder_row(id as usize, row));
            rows
        }
    };
    let found = tally.report(request, &categories, [&rows(0), &rows(1)], progress)?;
    Ok(Report {
        a: side(found.a, &request.model_a, &request.dictionary_a, points[0]),
        b: side(found.b, &request.model_b, &request.dictionary_b, points[1]),
        notes,
        same_tokenizer,
        pieces_left_out: left_out,
        sinks,
        bytes: sizes[0] * sizes[1] * size_of::<f64>(),
        seconds: start.elapsed().as_secs_f64(),
        ..found
    })
}

fn side(known: Side, model: &Path, dictionary: &Path, point: HookPoint) -> Side {
    let text = |name: Option<&std::ffi::OsStr>| name.unwrap_or_default().to_string_lossy().into_owned();
    Side { model: text(model.file_name()), dictionary: text(dictionary.file_stem()), point: point.to_string(), ..known }
}

fn point(dictionary: &Dictionary, layer: Option<usize>, path: &Path) -> Result<HookPoint> {
    dictionary.check_one_layer("universality")?;
    layer.map(HookPoint::from).or_else(|| dictionary.point()).ok_or_else(|| {
        let what = format!("{}: the dictionary does not say which hook point it belongs to", path.display());
        Error::argument(what).hinted("name the layer")
    })
}

/// The text of a document; of a conversation what was said.
fn text(document: &Document) -> String {
    match document {
        Document::Text(text) => text.clone(),
        Document::Chat(messages) => messages.iter().map(|m| m.content.as_str()).collect::<Vec<_>>().join("\n\n"),
    }
}

/// Both models' tokens of a piece of text, and the tokens that go together.
type Paired = ([Vec<i32>; 2], Vec<Place>);

/// The models.
struct Reader {
    a: Engine,
    /// None where A and B are one model.
    b: Option<Engine>,
    points: [HookPoint; 2],
    same: bool,
}

impl Reader {
    fn open(request: &Request, dictionaries: &[Dictionary; 2], points: [HookPoint; 2]) -> Result<(Self, Vec<String>)> {
        let options = Options {
            threads: request.threads,
            gpu_layers: request.gpu_layers,
            context: 2048,
            batch: 1024,
            sequences: 32,
            ..Options::default()
        };
        let one = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let is_one = one(&request.model_a) == one(&request.model_b);
        let a = Engine::open(&request.model_a, &options)?;
        let b = if is_one { None } else { Some(Engine::open(&request.model_b, &options)?) };
        let mut notes = Vec::new();
        for (engine, dictionary) in [&a, b.as_ref().unwrap_or(&a)].into_iter().zip(dictionaries) {
            let fingerprint = Model::open(engine.path())?.fingerprint().to_owned();
            notes.extend(dictionary.check_model(engine.d_model(), engine.n_layer(), &fingerprint)?);
        }
        let same = b.as_ref().is_none_or(|b| same_tokenizer(&a, b));
        Ok((Self { a, b, points, same }, notes))
    }

    /// Both models' tokens of a piece, and which go together; none if one cannot read it or they do not spell it alike.
    fn cut(&self, piece: &str, texts: &mut Texts) -> Result<Option<Paired>> {
        let document = Document::Text(piece.to_owned());
        let cut = |engine: &Engine| -> Result<(Vec<i32>, Cut)> {
            let tokens = engine.document_tokens(&document)?;
            let cut = Cut::new(tokens.iter().map(|&token| engine.token_bytes(token, false)));
            Ok((tokens, cut))
        };
        let (tokens, own) = cut(&self.a)?;
        let (other, places) = match self.b.as_ref() {
            None => (tokens.clone(), Some(token_by_token(&own, texts))),
            Some(b) => {
                let (other, cut) = cut(b)?;
                let places =
                    if self.same { Some(token_by_token(&own, texts)) } else { word_by_word(&own, &cut, texts) };
                (other, places)
            }
        };
        let longest = |engine: &Engine, tokens: &[i32]| tokens.len() <= engine.longest();
        let read = longest(&self.a, &tokens) && longest(self.b.as_ref().unwrap_or(&self.a), &other);
        // With one vocabulary, two files may still differ in how text is cut.
        let whole = !self.same || tokens == other;
        Ok(places.filter(|places| read && whole && !places.is_empty()).map(|places| ([tokens, other], places)))
    }

    /// The rows of the paired tokens, `[n_pairs, d_model]` a side.
    fn rows(&mut self, tokens: &[Vec<Vec<i32>>; 2], places: &[Vec<Place>]) -> Result<[Vec<f32>; 2]> {
        let mut rows = [Vec::new(), Vec::new()];
        let mut take = |side: usize, piece: usize, d: usize, found: &[f32]| {
            for place in &places[piece] {
                let at = if side == 0 { place.a } else { place.b };
                rows[side].extend_from_slice(found.get(at * d..(at + 1) * d).unwrap_or_default());
            }
        };
        let (d, points) = (self.a.d_model(), self.points);
        let of_a = if self.b.is_some() || points[0] == points[1] { &points[..1] } else { &points[..] };
        let sides = if self.b.is_none() { 2 } else { 1 };
        self.a.read_rows(&tokens[0], of_a, &mut |piece, point, found| {
            let sides = points.iter().enumerate().take(sides).filter(|(_, of_side)| **of_side == of_a[point]);
            sides.for_each(|(side, _)| take(side, piece, d, found));
            Ok(())
        })?;
        self.a.rest();
        if let Some(b) = &mut self.b {
            let d = b.d_model();
            b.read_rows(&tokens[1], &points[1..], &mut |piece, _, found| {
                take(1, piece, d, found);
                Ok(())
            })?;
            b.rest();
        }
        Ok(rows)
    }
}

/// Whether every token of both vocabularies spells the same.
fn same_tokenizer(a: &Engine, b: &Engine) -> bool {
    let n = a.n_vocab();
    let token = |engine: &Engine, id: usize| engine.token_bytes(id as i32, true);
    n == b.n_vocab() && (0..n).all(|id| token(a, id) == token(b, id))
}

/// Text under way.
struct Reading<'r> {
    request: &'r Request,
    reader: Reader,
    dictionaries: &'r [Dictionary; 2],
    tally: Tally,
    tokens: [Vec<Vec<i32>>; 2],
    places: Vec<Vec<Place>>,
    /// Told by the first block.
    far: Option<[Sinks; 2]>,
    left_out: usize,
    sinks: u64,
}

impl<'r> Reading<'r> {
    fn new(request: &'r Request, reader: Reader, dictionaries: &'r [Dictionary; 2], tally: Tally) -> Self {
        let (tokens, places) = Default::default();
        Self { request, reader, dictionaries, tally, tokens, places, far: None, left_out: 0, sinks: 0 }
    }

    fn waiting(&self) -> usize {
        self.places.iter().map(Vec::len).sum()
    }

    /// Reads a text; true once there are tokens enough.
    fn read(&mut self, text: &str, progress: &mut Progress<'_>) -> Result<bool> {
        let mut left: Vec<&str> = pieces(text, self.request.piece);
        left.reverse();
        while let Some(piece) = left.pop() {
            match self.reader.cut(piece, &mut self.tally.texts)? {
                Some((tokens, places)) => {
                    self.tokens.iter_mut().zip(tokens).for_each(|(all, one)| all.push(one));
                    self.places.push(places);
                }
                // Too many tokens, perhaps.
                None if piece.len() > SHORTEST => left.extend(pieces(piece, piece.len().div_ceil(2)).into_iter().rev()),
                None => self.left_out += 1,
            }
            let enough = self.tally.n_tokens() as usize + self.waiting() >= self.request.max_tokens;
            if enough || self.waiting() >= BLOCK {
                self.add_block(progress)?;
            }
            // Attention sinks were left out.
            if self.tally.n_tokens() as usize >= self.request.max_tokens {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Reads, encodes and counts what waits.
    fn add_block(&mut self, progress: &mut Progress<'_>) -> Result<()> {
        let room = self.request.max_tokens.saturating_sub(self.tally.n_tokens() as usize);
        report(progress, self.tally.n_tokens(), self.request.max_tokens as u64, "reading")?;
        if self.places.is_empty() {
            return Ok(());
        }
        let rows = self.reader.rows(&self.tokens, &self.places)?;
        let items: Vec<Item> = self.places.iter().flatten().map(|place| place.item).collect();
        let widths = [0, 1].map(|side| self.dictionaries[side].d_model());
        let row = |side: usize, i: usize| rows[side].get(i * widths[side]..(i + 1) * widths[side]).unwrap_or_default();
        let far = self.far.get_or_insert_with(|| [0, 1].map(|side| Sinks::of(&rows[side], widths[side])));
        let mut kept: Vec<usize> =
            (0..items.len()).filter(|&i| (0..2).all(|side| !far[side].contains(row(side, i)))).collect();
        self.sinks += (items.len() - kept.len()) as u64;
        kept.truncate(room);
        let threads = count(self.request.threads);
        let codes = [0, 1].map(|side| {
            let rows: Vec<f32> = kept.iter().flat_map(|&i| row(side, i).iter().copied()).collect();
            self.dictionaries[side].encode_batch(&rows, threads)
        });
        let items: Vec<Item> = kept.iter().map(|&i| items[i]).collect();
        self.tally.add([Codes::from(&codes[0]), Codes::from(&codes[1])], &items, threads)?;
        self.tokens.iter_mut().for_each(Vec::clear);
        self.places.clear();
        Ok(())
    }
}
