//! docs/resources.md: what it shows is accepted, or refused as it says.

use documents::{Errors, File, Resource, compile, parse};

/// Blocks of one language, in order.
fn blocks(language: &str) -> Vec<String> {
    let page = include_str!("../../../docs/resources.md");
    let fence = format!("```{language}\n");
    let blocks = page.split(&fence).skip(1).map(|it| it.split("```").next().unwrap().to_owned());
    blocks.collect()
}

fn compiled(name: &str, text: &str) -> Result<Vec<Resource>, Errors> {
    compile(&parse(&[File { name, text }])?)
}

#[test]
fn every_example_is_accepted() {
    for (language, name) in [("yaml", "page.yaml"), ("json", "page.json")] {
        let blocks = blocks(language);
        assert!(!blocks.is_empty(), "{language}");
        for block in blocks {
            let resources = compiled(name, &block).unwrap_or_else(|it| panic!("{it}\nin\n{block}"));
            assert!(!resources.is_empty(), "{block}");
            for resource in resources {
                assert_eq!(resource.warnings, [], "{block}");
            }
        }
    }
}

#[test]
fn an_error_looks_as_it_is_shown() {
    let shown = blocks("text");
    let wrong = blocks("yaml wrong");
    assert_eq!(wrong.len(), 1);
    let errors = compiled("edge.yaml", &wrong[0]).unwrap_err().to_string();
    assert!(shown.contains(&format!("{errors}\n")), "{errors}");
}
