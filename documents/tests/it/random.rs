//! Whatever is read, nothing panics, and what is accepted is stable.
//!
//! Valid documents are damaged at random, from a seed that a failure prints; `SEED` repeats one.

use documents::{File, Resource, clashes, compile, dangling, duplicates, oversized, parse};
use rand::{RngExt, SeedableRng, rngs::StdRng};

const ROUNDS: u64 = 5_000;

/// Pieces that YAML and protobuf's JSON give a meaning to.
const PIECES: [&str; 26] = [
    "\t",
    "\n",
    "---\n",
    "- ",
    ": ",
    "{",
    "}",
    "[",
    "]",
    "\"",
    "'",
    "&a ",
    "*a",
    "!!str ",
    "|\n",
    "<<: ",
    "null",
    "-1",
    "1e400",
    "99999999999999999999",
    "0.0000000001s",
    "\u{feff}",
    "\u{0}",
    "é",
    "\\ud800",
    "@type: type.googleapis.com/google.protobuf.Any",
];

#[test]
fn no_damage_makes_it_panic() {
    let page = include_str!("../../../docs/resources.md");
    let blocks = |language: &str| -> Vec<String> {
        let fence = format!("```{language}\n");
        page.split(&fence).skip(1).map(|it| it.split("```").next().unwrap().to_owned()).collect()
    };
    let yaml = blocks("yaml").into_iter().map(|it| ("a.yaml", it));
    let valid: Vec<_> = yaml.chain(blocks("json").into_iter().map(|it| ("a.json", it))).collect();
    let chosen = std::env::var("SEED").ok().map(|it| it.parse::<u64>().unwrap());
    for seed in chosen.map_or(0..ROUNDS, |seed| seed..seed + 1) {
        let mut random = StdRng::seed_from_u64(seed);
        let (name, text) = &valid[random.random_range(0..valid.len())];
        let text = damaged(text, &mut random);
        let outcome = std::panic::catch_unwind(|| read(name, &text));
        assert!(outcome.is_ok(), "SEED={seed}\n{text}");
        assert_eq!(outcome.unwrap(), read(name, &text), "SEED={seed}\n{text}");
    }
}

/// The target of a fuzzer: all that is made of a text.
fn read(name: &str, text: &str) -> Vec<Resource> {
    let documents = parse(&[File { name, text }]).unwrap_or_default();
    let resources = compile(&documents).unwrap_or_default();
    duplicates(&resources);
    clashes(&resources);
    oversized(&resources);
    dangling(&resources, |_, _| false);
    resources
}

fn damaged(text: &str, random: &mut StdRng) -> String {
    let mut letters: Vec<char> = text.chars().collect();
    for _ in 0..random.random_range(1..5) {
        let at = random.random_range(0..=letters.len());
        let end = (at + random.random_range(0..20)).min(letters.len());
        match random.random_range(0..4) {
            0 => drop(letters.drain(at..end)),
            1 => {
                let copy = letters[at..end].to_vec();
                let to = random.random_range(0..=letters.len());
                letters.splice(to..to, copy);
            }
            2 => {
                let piece = PIECES[random.random_range(0..PIECES.len())];
                letters.splice(at..at, piece.chars());
            }
            _ => {
                let piece = PIECES[random.random_range(0..PIECES.len())];
                letters.splice(at..end, piece.chars());
            }
        }
    }
    letters.into_iter().collect()
}
