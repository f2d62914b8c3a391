//! The built-in list of concepts is what the bench promises.

use tiller::eval::concepts::Suite;

#[test]
fn the_built_in_concepts_are_enough_and_their_held_out_words_disjoint() {
    let suite = Suite::from_json(include_str!("../examples/concepts.json"), "concepts.json").unwrap();
    assert!(suite.concepts.len() >= 10, "{}", suite.concepts.len());
    assert!(suite.prompts.len() >= 20, "{}", suite.prompts.len());
    for concept in &suite.concepts {
        assert!(concept.words.len() >= 3 && concept.held_out.len() >= 20, "{}", concept.name);
    }
}
