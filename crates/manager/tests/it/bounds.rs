//! What the API accepts as work, the protocol carries.

use std::collections::BTreeMap;

use legation_api::tasks::{Http, Shell, SubmitTask, Work as Asked};
use legation_model::task::{ENV_MAX, HEADERS_MAX, INTERPRETER_MAX, KEY_MAX, VALUE_MAX, WORK_MAX, WORK_TOTAL_MAX};
use legation_wire::message::Work;
use proptest::{prelude::*, sample::select};

/// Around a bound, and far below it.
fn near(bound: usize) -> impl Strategy<Value = usize> {
    select(vec![0, 1, 300.min(bound), bound - 1, bound, bound + 1])
}

fn text(bytes: usize) -> String {
    "x".repeat(bytes)
}

/// That many names of that length, as far as so many differ.
fn pairs(count: usize, name: usize, value: usize) -> BTreeMap<String, String> {
    (0..count).map(|number| (format!("{:a>name$}", format!("x{number}")), text(value))).collect()
}

fn asked() -> impl Strategy<Value = Asked> {
    let sizes = (near(WORK_MAX), near(INTERPRETER_MAX), near(ENV_MAX.max(HEADERS_MAX)), near(HEADERS_MAX));
    let words = (near(VALUE_MAX), near(255), near(KEY_MAX), near(1024), any::<bool>());
    (sizes, words, near(WORK_TOTAL_MAX)).prop_map(|((body, interpreter, env, headers), words, total)| {
        let (word, variable, header, value, shell) = words;
        if shell {
            let env = pairs(env, variable, value);
            let others =
                body + interpreter * 20 + env.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>();
            let interpreter = vec![text(20); interpreter];
            // Fills up to the total, where that can be.
            let stdin = text(total.saturating_sub(others + word).min(WORK_MAX));
            return Asked::Shell(Shell { script: text(body), interpreter, env, cwd: Some(text(word)), stdin });
        }
        let headers = pairs(headers, header, value);
        let method = "G".repeat(header);
        Asked::Http(Http { method, url: format!("http://{}", text(word.saturating_sub(7))), headers, body: text(body) })
    })
}

fn carried(asked: Asked) -> Work {
    match asked {
        Asked::Shell(Shell { script, interpreter, env, cwd, stdin }) => {
            Work::Shell { script, interpreter, env: env.into_iter().collect(), cwd, stdin: stdin.into_bytes() }
        }
        Asked::Http(Http { method, url, headers, body }) => {
            Work::Http { method, url, headers: headers.into_iter().collect(), body: body.into_bytes() }
        }
    }
}

fn checked(asked: &Asked) -> bool {
    SubmitTask::new("default".parse().expect("a scope"), asked.clone()).check().is_ok()
}

proptest! {
    #[test]
    fn accepted_work_can_be_carried(asked in asked()) {
        if checked(&asked) {
            prop_assert!(carried(asked).encode().is_ok());
        }
    }
}

#[test]
fn the_largest_of_everything_is_accepted_and_carried() {
    let interpreter = vec!["x".to_owned(); INTERPRETER_MAX];
    let env = pairs(ENV_MAX, 255, 64);
    let cwd = Some(text(VALUE_MAX));
    let mut shell = Shell { script: text(WORK_MAX), interpreter, env, cwd, stdin: String::new() };
    let sizes = |shell: &Shell| shell.script.len() + INTERPRETER_MAX + VALUE_MAX + ENV_MAX * (255 + 64);
    shell.stdin = text(WORK_TOTAL_MAX - sizes(&shell));
    assert!(checked(&Asked::Shell(shell.clone())) && carried(Asked::Shell(shell.clone())).encode().is_ok());
    shell.stdin.push('x');
    assert!(!checked(&Asked::Shell(shell)), "more in all");
    let headers = pairs(HEADERS_MAX, KEY_MAX, 1);
    let url = format!("http://{}", text(VALUE_MAX - 7));
    let http = Asked::Http(Http { method: "G".repeat(KEY_MAX), url, headers, body: text(WORK_MAX) });
    assert!(checked(&http) && carried(http).encode().is_ok());
}
