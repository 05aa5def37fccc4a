//! What users of Kubernetes are given: rendered as helm does it, and held against the schemas of Kubernetes.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Output},
    sync::OnceLock,
};

use legation_api::handover::{Handover, Place};
use legation_testkit::repo;

/// Keeps what it is told to apply, and the arguments of helm.
const FAKE: &str = r#"#!/bin/sh
case "$(basename "$0") $1" in
    'kubectl create') test -s delegate.token || exit 1 ;;
    'kubectl apply') cat > manifest.yaml ;;
    'helm upgrade') printf '%s\n' "$@" > helm.arguments ;;
    'shred -u') rm "$2" ;;
    *) exit 1 ;;
esac
"#;

/// The interpreter of the tests' own environment.
fn python() -> &'static str {
    static PYTHON: OnceLock<String> = OnceLock::new();
    PYTHON.get_or_init(|| {
        let output = Command::new(repo::top().join("scripts/python.sh")).output().expect("a shell");
        assert!(output.status.success(), "scripts/python.sh: {}", text(&output));
        format!("{}/python3", String::from_utf8(output.stdout).expect("a path").trim())
    })
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

/// Runs the check from the repository's top, where users run helm.
fn check(arguments: &[&str]) -> String {
    let mut command = Command::new(python());
    command.arg("scripts/check-kubernetes.py").args(arguments).env("PYTHONDONTWRITEBYTECODE", "1");
    let output = command.current_dir(repo::top()).output().expect("Python");
    assert!(output.status.success(), "{arguments:?}: {}", text(&output));
    String::from_utf8(output.stdout).expect("a text")
}

/// Pastes the commands for a place into a shell, where programs stand in for those of Kubernetes.
fn paste(place: Place, name: &str, directory: &Path) {
    for program in ["kubectl", "helm", "shred"] {
        let path = directory.join(program);
        fs::write(&path, FAKE).expect("a program");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("a mode");
    }
    fs::write(directory.join("delegate.token"), "the value").expect("a file");
    let commands = Handover { link: "https://manager.example:7430", name, unwrap_at: None }.commands(place);
    let mut shell = Command::new("/bin/sh");
    shell
        .args(["-euc", &commands])
        .current_dir(directory)
        .env("PATH", format!("{}:/usr/bin:/bin", directory.display()));
    let output = shell.env("IMAGE", "registry.example/delegate").env("TAG", "1").output().expect("a shell");
    assert!(output.status.success(), "{}\n{commands}", text(&output));
    assert!(!directory.join("delegate.token").exists(), "the value lies about");
}

#[test]
fn the_chart_makes_what_kubernetes_takes() {
    let made = check(&["chart", "deploy/helm/legation-delegate"]);
    assert_eq!(made, "Service/farm StatefulSet/farm\nConfigMap/farm Service/farm StatefulSet/farm\n");
}

#[test]
fn what_is_pasted_for_kubectl_is_what_kubernetes_takes() {
    for name in ["farm", "default_token", "123", "a:b=c@d"] {
        let directory = tempfile::tempdir().expect("a directory");
        paste(Place::Kubectl, name, directory.path());
        let manifest = directory.path().join("manifest.yaml");
        let told = check(&["manifest", manifest.to_str().expect("a text")]);
        assert_eq!(told, format!("{name} https://manager.example:7430\n"));
    }
}

#[test]
fn what_is_pasted_for_helm_fits_the_chart() {
    for name in ["farm", "default_token", "123", "a:b=c@d"] {
        let directory = tempfile::tempdir().expect("a directory");
        paste(Place::Helm, name, directory.path());
        let arguments = fs::read_to_string(directory.path().join("helm.arguments")).expect("arguments");
        let arguments: Vec<&str> = arguments.lines().collect();
        let ["upgrade", "--install", _release, chart, rest @ ..] = &arguments[..] else { panic!("{arguments:?}") };
        let sets = rest.chunks(2).map(|pair| match pair {
            ["--set-string", set] => *set,
            _ => panic!("{rest:?}"),
        });
        let told = check(&[&["chart", chart][..], &sets.collect::<Vec<_>>()].concat());
        assert_eq!(told, format!("{name} https://manager.example:7430\n"));
    }
}
