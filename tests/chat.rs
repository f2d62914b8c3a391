//! Conversations that keep their cache, and the command `tiller chat`.
#![cfg(feature = "engine")]

mod support;

use std::sync::Arc;

use support::agree::same_choices;
use tiller::engine::{Conversation, Engine, Generate, Message, Options, Stop};
use tiller::plan::{Compiled, Plan, Route, Rule, Selector, Strength};

fn open(context: usize) -> Option<Engine> {
    let path = support::model(support::SMOLLM)?;
    let options = Options { context, batch: 64, threads: support::THREADS, ..Options::default() };
    Some(Engine::open(&path, &options).unwrap())
}

/// A push of every row that `select` takes, through the callback: its ledger counts the rows that were computed.
fn push(engine: &Engine, size: f32, select: Selector) -> Arc<Compiled> {
    let direction: Vec<f32> = (0..engine.d_model()).map(|i| size * ((i * 37 % 101) as f32 / 50.0 - 1.0)).collect();
    let rule = Rule::vector(direction, Strength::raw(1.0)).at_layer(10).select(select);
    Arc::new(Plan::new([rule]).compile(&[], &engine.target(), Route::Callback).unwrap())
}

fn greedy(max_tokens: usize) -> Generate {
    Generate { max_tokens, ..Generate::default() }
}

/// Rows that the plan in force edited since the last call.
fn edited(engine: &mut Engine) -> u64 {
    engine.finish().ok().unwrap().rows_edited
}

#[test]
fn a_turn_computes_what_is_new_and_says_what_a_fresh_reading_would() {
    let _turn = support::turn();
    let Some(mut engine) = open(512) else { return };
    // It moves nothing, so that the model answers sensibly, and counts every row.
    let plan = push(&engine, 1e-6, Selector::default().include_first(true));
    engine.set_plan(Some(plan)).unwrap();
    let mut talk = Conversation::of([Message::system("You are a sailor.")]);
    let mut before = 0;
    for (i, said) in ["What is your name?", "Where do you sail?", "And then?"].into_iter().enumerate() {
        let reply = engine.reply(&mut talk, said, &greedy(12), &mut |_| true).unwrap();
        let (prompt, tokens) = (reply.generation.prompt().to_vec(), reply.generation.tokens().to_vec());
        // Of the turn before, all but a last token that was drawn and not computed is kept.
        assert_eq!(reply.kept, before, "turn {i}");
        let computed = match reply.generation.stop() {
            Some(Stop::End) => tokens.len(),
            _ => tokens.len() - 1,
        };
        assert_eq!(edited(&mut engine), (reply.read() + computed) as u64, "turn {i}");
        before = prompt.len() + computed;
        assert_eq!(talk.messages().len(), 1 + 2 * (i + 1));

        let Some(mut fresh) = open(512) else { return };
        let other = fresh.generate_tokens(&prompt, &greedy(12), &mut |_| true).unwrap();
        same_choices(&mut fresh, &prompt, &tokens, other.tokens());
        if i == 0 {
            let messages = [Message::system("You are a sailor."), Message::user(said)];
            assert_eq!(prompt, fresh.chat_tokens(&messages, true).unwrap());
        }
    }
}

#[test]
fn a_change_of_plan_reads_the_conversation_anew_and_the_same_plan_does_not() {
    let _turn = support::turn();
    let Some(mut engine) = open(512) else { return };
    let mut talk = Conversation::new();
    let say = |engine: &mut Engine, talk: &mut Conversation| {
        let reply = engine.reply(talk, "Tell me more.", &greedy(6), &mut |_| true).unwrap();
        (reply.kept, reply.read())
    };
    say(&mut engine, &mut talk);
    let (kept, _) = say(&mut engine, &mut talk);
    assert!(kept > 0);
    let all = || Selector::default().include_first(true);
    let (weak, strong) = (push(&engine, 0.5, all()), push(&engine, 1.0, all()));
    engine.set_plan(Some(weak)).unwrap();
    assert_eq!(say(&mut engine, &mut talk).0, 0, "rows of no plan are no rows of this one");
    // What does the same is the same plan, however it was made; none is what an empty one does.
    let again = push(&engine, 0.5, all());
    engine.set_plan(Some(again)).unwrap();
    assert!(say(&mut engine, &mut talk).0 > 0);
    engine.set_plan(Some(strong)).unwrap();
    assert_eq!(say(&mut engine, &mut talk).0, 0);
    engine.set_plan(None).unwrap();
    assert_eq!(say(&mut engine, &mut talk).0, 0);
    let empty = Plan::default().compile(&[], &engine.target(), Route::Auto).unwrap();
    engine.set_plan(Some(Arc::new(empty))).unwrap();
    assert!(say(&mut engine, &mut talk).0 > 0);
    // A plan through a handle counts as well, and so does anything else that the engine read.
    let weak = push(&engine, 0.5, all());
    engine.steering().set_plan(Some(weak)).unwrap();
    assert_eq!(say(&mut engine, &mut talk).0, 0);
    engine.perplexity("The sea is calm today.", 0).unwrap();
    assert_eq!(say(&mut engine, &mut talk).0, 0);
    talk.set_system(Some("You are a pirate."));
    let (kept, read) = say(&mut engine, &mut talk);
    assert!(kept < 8 && read > 50, "the front has changed: {kept} kept, {read} read");
}

#[test]
fn answers_that_are_read_again_count_as_generated() {
    let _turn = support::turn();
    let Some(mut engine) = open(512) else { return };
    let mut talk = Conversation::new();
    let mut answers = 0;
    for _ in 0..2 {
        let reply = engine.reply(&mut talk, "Tell me more.", &greedy(6), &mut |_| true).unwrap();
        answers += reply.generation.tokens().len();
    }
    edited(&mut engine);
    let plan = push(&engine, 1e-6, Selector::generated());
    engine.set_plan(Some(plan)).unwrap();
    let reply = engine.reply(&mut talk, "And?", &greedy(1), &mut |_| true).unwrap();
    assert_eq!((reply.kept, edited(&mut engine)), (0, answers as u64));
}

#[test]
fn a_full_context_drops_the_oldest_turns() {
    let _turn = support::turn();
    let Some(mut engine) = open(160) else { return };
    let mut talk = Conversation::of([Message::system("Be brief.")]);
    let (mut dropped, mut most) = (0, 0);
    for i in 0..12 {
        let said = format!("Tell me about the number {i}, which is my favourite number of all.");
        let reply = engine.reply(&mut talk, &said, &greedy(20), &mut |_| true).unwrap();
        let length = reply.generation.prompt().len();
        assert!(length + 20 <= 160, "turn {i}: {length}");
        assert_ne!(reply.generation.stop(), Some(Stop::Context));
        if reply.dropped > 0 {
            assert!(length <= 80 && reply.dropped.is_multiple_of(2), "turn {i}: {length}, {}", reply.dropped);
        }
        (dropped, most) = (dropped + reply.dropped, most.max(length));
        assert_eq!(talk.messages()[0], Message::system("Be brief."));
        assert_eq!(talk.messages().last().map(|m| m.role.as_str()), Some("assistant"));
    }
    assert!(dropped >= 4 && most > 100, "{dropped} dropped, {most} at most");
    let before = talk.messages();
    let long = "word ".repeat(200);
    let error = engine.reply(&mut talk, &long, &greedy(20), &mut |_| true).err().unwrap();
    assert!(error.message().contains("the context holds 160"), "{error}");
    assert_eq!(talk.messages(), before, "what could not be answered was not said");
    assert!(engine.reply(&mut talk, "Still there?", &greedy(4), &mut |_| true).is_ok());
}

#[test]
fn an_answer_that_was_stopped_stays_as_far_as_it_came() {
    let _turn = support::turn();
    let Some(mut engine) = open(512) else { return };
    let mut talk = Conversation::new();
    let mut pieces = 0;
    let mut stop = |_: &str| {
        pieces += 1;
        pieces < 3
    };
    let reply = engine.reply(&mut talk, "Tell me a long story.", &greedy(50), &mut stop).unwrap();
    assert_eq!(reply.generation.stop(), Some(Stop::Caller));
    assert_eq!(talk.messages()[1], Message::assistant(reply.generation.text()));
    let next = engine.reply(&mut talk, "Go on.", &greedy(4), &mut |_| true).unwrap();
    assert!(next.kept >= reply.generation.prompt().len() + 2);
}

#[test]
fn samplers_refuse_what_they_cannot_do_and_a_penalty_ends_a_loop() {
    let _turn = support::turn();
    let Some(mut engine) = open(256) else { return };
    for (options, what) in [
        (Generate { min_p: 1.5, ..greedy(1) }, "min_p is 1.5"),
        (Generate { min_p: f32::NAN, ..greedy(1) }, "min_p is NaN"),
        (Generate { repeat_penalty: 0.5, ..greedy(1) }, "repeat_penalty is 0.5"),
        (Generate { repeat_penalty: f32::INFINITY, ..greedy(1) }, "repeat_penalty is inf"),
    ] {
        let error = engine.generate("a", &options, &mut |_| true).err().unwrap();
        assert!(error.message().contains(what), "{error}");
    }
    let distinct = |tokens: &[i32]| tokens.iter().collect::<std::collections::HashSet<_>>().len();
    let prompt = "one two one two one two one two one two one two";
    let looped = engine.generate(prompt, &greedy(40), &mut |_| true).unwrap();
    let guarded = Generate { repeat_penalty: 1.5, ..greedy(40) };
    let guarded = engine.generate(prompt, &guarded, &mut |_| true).unwrap();
    let (before, after) = (distinct(looped.tokens()), distinct(guarded.tokens()));
    assert!(before <= 10 && after >= 3 * before, "{before} and {after} of 40 tokens are different");
    // A share of the likeliest token's probability that only it has.
    let only = Generate { temperature: 1.5, min_p: 1.0, ..greedy(20) };
    let only = engine.generate(prompt, &only, &mut |_| true).unwrap();
    let read = engine.tokenize(prompt, true).unwrap();
    same_choices(&mut engine, &read, only.tokens(), &looped.tokens()[..20]);
}

#[cfg(feature = "cli")]
mod command {
    use std::io::Write;
    use std::path::Path;
    use std::process::{Command, Output, Stdio};

    use super::support::tiny::{D, Tiny};
    use serde_json::Value;

    /// Chats with a tiny model in `dir`, by `lines`.
    fn chat(dir: &Path, more: &[&str], lines: &str) -> Output {
        let args = ["chat", "tiny.gguf", "--threads", "1", "--max-tokens", "8", "--temperature", "0"];
        let mut command = Command::new(env!("CARGO_BIN_EXE_tiller"));
        command.args(args).args(more).current_dir(dir);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    }

    fn tiny(dir: &Path) {
        Tiny::new("llama").with("tokenizer.chat_template", "<|im_start|>").write(dir, "tiny.gguf");
        let vector = vec![40.0; D as usize];
        let plan = serde_json::json!({"version": 1, "rules": [
            {"op": "add", "layer": 0, "vector": vector, "strength": 1, "select": {"phase": "generated"}},
        ]});
        std::fs::write(dir.join("plan.json"), plan.to_string()).unwrap();
    }

    fn text(bytes: &[u8]) -> String {
        String::from_utf8_lossy(bytes).into_owned()
    }

    fn objects(output: &Output) -> Vec<Value> {
        text(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn a_chat_through_a_pipe_gives_an_object_a_turn() {
        let dir = tempfile::tempdir().unwrap();
        tiny(dir.path());
        let lines =
            "Hi\n\n  And you?  \n/plan plan.json\nHi\n/strength 0.5\n/plan\n/compare\n/steer off\nBye\n/quit\nnever\n";
        let made = chat(dir.path(), &["--json", "--context", "512"], lines);
        assert_eq!(made.status.code(), Some(0), "{}", text(&made.stderr));
        let all = objects(&made);
        let turns: Vec<&Value> = all.iter().filter(|object| object.get("turn").is_some()).collect();
        assert_eq!((all.len(), turns.len()), (6, 4), "{all:?}");
        let said: Vec<&str> = turns.iter().map(|turn| turn["user"].as_str().unwrap()).collect();
        assert_eq!(said, ["Hi", "And you?", "Hi", "Bye"]);
        let number = |i: usize, key: &str| turns[i][key].as_u64().unwrap();
        assert_eq!(number(0, "read"), number(0, "prompt_tokens"));
        assert!(number(1, "read") < number(1, "prompt_tokens"), "the cache is kept");
        // Another plan: all is read again.
        assert_eq!(number(2, "read"), number(2, "prompt_tokens"));
        assert_eq!(turns[2]["steering"], serde_json::json!(["the plan plan.json"]));
        assert_eq!(all[3]["plan"]["rules"][0]["strength"], 0.5);
        assert_eq!(all[4]["command"], "compare");
        assert_ne!(all[4]["unsteered"]["text"], all[4]["steered"]["text"]);
        assert_eq!(turns[3]["steering"], serde_json::json!([]));
    }

    #[test]
    fn lines_that_fail_are_told_and_end_nothing() {
        let dir = tempfile::tempdir().unwrap();
        tiny(dir.path());
        let long = "in the ".repeat(300);
        let lines = format!("/dance\n{long}\n/compare\n/plan none.json\n/strength much\n/avoid plan.json\nHi\n");
        let made = chat(dir.path(), &["--context", "256"], &lines);
        let told = text(&made.stderr);
        assert_eq!(made.status.code(), Some(1), "{told}");
        for part in [
            "error: /dance is no command",
            "the context holds 256",
            "/compare: nothing was said yet",
            "none.json: cannot open",
            "/strength: expected a number, found \"much\"",
            "a plan is followed or not",
            "6 lines could not be done",
        ] {
            assert!(told.contains(part), "{part}: {told}");
        }
        assert_eq!(told.lines().filter(|line| line.starts_with("error: ")).count(), 7, "{told}");
        assert!(!text(&made.stdout).trim().is_empty(), "the last line was answered");
    }

    #[test]
    fn a_model_without_a_template_is_told_before_the_first_line() {
        let dir = tempfile::tempdir().unwrap();
        Tiny::new("llama").write(dir.path(), "tiny.gguf");
        let made = chat(dir.path(), &[], "Hi\n");
        assert!(made.status.code() == Some(1) && text(&made.stderr).contains("the model has no chat template"));
        assert!(made.stdout.is_empty());
    }
}
