//! The forgeries as the table in `README.md`.

use std::fmt::Write;

use crate::forgeries;
use crate::party::Forger;
use crate::scene::Scene;

/// The table of forgers and that of forgeries, in Markdown.
pub fn markdown() -> String {
    let mut text = String::from("| forger | has |\n|---|---|\n");
    for forger in Forger::ALL {
        push(&mut text, format_args!("| {forger} | {} |\n", forger.meaning()));
    }
    text.push_str("\n| forgery | forger | what is changed | refused by | scenes |\n|---|---|---|---|---|\n");
    for forgery in forgeries::all() {
        let scenes: Vec<&str> = forgery.scenes.iter().map(|scene| scene.as_str()).collect();
        let scenes = if scenes.len() == Scene::ALL.len() { "all".to_owned() } else { scenes.join(", ") };
        let (name, forger, change) = (&forgery.name, forgery.forger, &forgery.change);
        let mut refused = forgery.expected.to_string();
        for &scene in forgery.scenes.iter().filter(|&&scene| forgery.expected_in(scene) != forgery.expected) {
            push(&mut refused, format_args!("; in `{scene}` {}", forgery.expected_in(scene)));
        }
        push(&mut text, format_args!("| `{name}` | {forger} | {change} | {refused} | {scenes} |\n"));
    }
    text
}

fn push(text: &mut String, line: std::fmt::Arguments<'_>) {
    text.write_fmt(line).expect("a string takes all text");
}
