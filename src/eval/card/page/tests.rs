use super::super::report::{
    Additivity, Cost, Delayed, Dose, Effect, Feature, File, Fluencies, Gains, Label, Leak, Meaning, OneNat, Random,
    Sample, Whole,
};
use super::super::verdict::Verdict;
use super::*;
use crate::eval::choices::SideEffects;
use crate::eval::divergence::Divergence;

const EVIL: &str = "<script>alert('x')</script>&\"\u{1b}[31m\u{202e}";

/// A card with every part, whose texts are hostile.
fn full() -> Report {
    let evil = || EVIL.to_owned();
    let dose = |factor: f32, effect: f64, broken| Dose {
        factor,
        effect: Some(effect),
        interval: Some([effect - 0.1, effect + 0.1]),
        perplexity: 1.0 + f64::from(factor),
        broken,
        kl: 0.3,
        kl_p95: 1.2,
    };
    let whole = Whole { texts: 4, tokens: 100, perplexity: 2.0, distinct: 0.9, loops: 1, gibberish: 0 };
    let file = File { file: evil(), name: evil(), fingerprint: "ab".into(), bytes: 2048 };
    let facts = [("universal".to_owned(), serde_json::json!(true)), (evil(), serde_json::json!(EVIL))];
    let mut card = Report {
        title: evil(),
        rules: vec![evil()],
        setting: "chat".into(),
        meaning: Meaning {
            features: vec![Feature {
                words: evil(),
                lifted: vec![evil()],
                lift: Some(0.5),
                by_lens: true,
                ..Feature::default()
            }],
            more_features: 2,
            likelier: vec![(evil(), 0.2)],
            unlikelier: vec![("\n".into(), 0.1)],
        },
        samples: vec![
            Sample {
                prompt: evil(),
                without: evil(),
                with: evil(),
                asked: Some(evil()),
                broken: Some("loops".into())
            };
            6
        ],
        effect: Effect {
            measure: Measure::Asked,
            aims: vec![evil()],
            value: Some(0.7),
            interval: Some([0.5, 0.9]),
            each: vec![0.7],
            asked: Some(1.0),
            sigma: Some(6.0),
            against: true,
        },
        doses: vec![dose(0.5, 0.3, 0.0), dose(1.0, 0.7, 0.0), dose(2.0, 0.9, 0.5)],
        one_nat: Some(OneNat { factor: 0.8, effect: Some(0.5) }),
        random: Random {
            directions: 30,
            texts: 4,
            sizes: vec![(3, 0.1)],
            mean: Some(0.0),
            deviation: Some(0.1),
            broken: 0.0,
            perplexity: 1.1,
        },
        fluency: Fluencies { without: whole, with: whole, asked: Some(whole) },
        asked_divergence: Some(Divergence::default()),
        choices: SideEffects { questions: 60, rate: Some(0.5), changed: 2, worsened: 1, ..SideEffects::default() },
        leak: Leak {
            concepts: vec!["sea".into(), evil()],
            own: vec![0],
            rows: ["the plan", "asked", EVIL].map(|name| Gains { name: name.into(), logs: vec![2.0, -1.0] }).into(),
            rise: vec![5.0, -1.0],
            own_rise: Some(5.0),
            leak: Some(0.1),
            leaks_to: Some(evil()),
            selectivity: Some(0.9),
            ..Leak::default()
        },
        additivity: Some(Additivity {
            rules: vec![evil()],
            aims: vec![evil()],
            alone: vec![vec![0.5]],
            together: vec![0.5],
            interaction: vec![0.0],
            mean: Some(0.0),
        }),
        labels: Some(vec![Label { feature: 7, facts: facts.into() }]),
        delayed: Some(vec![Delayed { feature: 7, tokens: 1, correlation: 0.4, control: 0.0 }]),
        cost: Cost { ms_without: 10.0, ms_with: 10.4, bytes: 5000, plan_bytes: 900, rows: [3, 9] },
        command: evil(),
        notes: vec![evil()],
        ..Report::default()
    };
    (card.identity.model, card.identity.plan, card.identity.dictionaries) = (file.clone(), file.clone(), vec![file]);
    card.verdict = Verdict::of(&card);
    card
}

/// Every tag that opens closes, in order.
fn is_well_formed(page: &str) -> std::result::Result<(), String> {
    const VOID: [&str; 2] = ["meta", "br"];
    let body = page.split_once("<html").ok_or("no page")?.1;
    let mut open: Vec<&str> = vec!["html"];
    for part in body.split('<').skip(1) {
        let (tag, _) = part.split_once('>').ok_or_else(|| format!("a tag without an end: {part}"))?;
        if tag.matches('"').count() % 2 != 0 {
            return Err(format!("quotes of {tag}"));
        }
        let name = tag.split([' ', '/']).next().unwrap_or_default();
        if let Some(name) = tag.strip_prefix('/') {
            let top = open.pop();
            if top != Some(name) {
                return Err(format!("{name} closes {top:?}"));
            }
        } else if !tag.ends_with('/') && !VOID.contains(&name) {
            open.push(name);
        }
    }
    if open.is_empty() { Ok(()) } else { Err(format!("still open: {open:?}")) }
}

#[test]
fn a_page_is_whole_and_well_formed_with_every_part_and_with_none() {
    for card in [full(), Report::default()] {
        let page = card.page();
        is_well_formed(&page).unwrap();
        assert!(page.starts_with("<!DOCTYPE html>") && page.contains("prefers-color-scheme:dark"));
        assert!(!page.contains("NaN") && !page.contains(">inf"), "numbers that are none");
    }
    let page = full().page();
    for part in
        ["Universality", "Delayed effects", "Rules together", "Make it again", "2 more", "<svg", "of what asking does"]
    {
        assert!(page.contains(part), "{part}");
    }
    let empty = Report::default().page();
    assert!(empty.contains("Not measured") && empty.contains("--temporal FILE") && empty.contains("--labels"));
}

#[test]
fn a_page_asks_nobody_and_runs_nothing() {
    let page = full().page();
    for part in ["<script", "http:", "https:", "//", "src=", "href=", "@import", "url(", "onload", "\u{1b}", "\u{202e}"]
    {
        assert!(!page.contains(part), "{part}");
    }
    assert!(page.contains("&lt;script&gt;alert(&#39;x&#39;)") && page.contains("\\u{1b}"));
}

#[test]
fn a_card_comes_back_from_json_with_the_same_page() {
    let card = full();
    let again = Report::from_json(&card.to_json().unwrap()).unwrap();
    assert_eq!((&again.verdict.word, &again.leak.concepts), (&card.verdict.word, &card.leak.concepts));
    assert_eq!(again.page(), card.page());
    assert!(Report::from_json("{\"version\": \"x\"}").is_err());
}

#[test]
fn checks_of_the_page_can_fail() {
    assert!(is_well_formed("<html><p>a</html>").is_err());
    assert!(is_well_formed("<html><p class=\"a>b</p></html>").is_err());
    assert!(is_well_formed("<html><p>a<br>b</p></html>").is_ok());
}
