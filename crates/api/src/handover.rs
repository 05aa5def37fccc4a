//! What to paste where a delegate is to run, for a token's value that lies in a file.
//!
//! The value itself is in none of it: on a command line it would be in the shell's history and in the list of processes,
//! and in a manifest it would be committed.

use legation_model::Name;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The file that the value is expected in.
pub const FILE: &str = "delegate.token";
/// Stands for the Manager's address where nobody has said it: no host has such a name.
pub const UNKNOWN_URL: &str = "https://your-manager.invalid:7430";
/// The longest name of an object of Kubernetes or Docker that is made of a token's name, in characters: what is appended
/// to it stays below 63.
const LABEL_MAX: usize = 40;

/// Where a delegate is to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// A shell.
    Env,
    /// Docker or Podman.
    Docker,
    /// Kubernetes, with Helm.
    Helm,
    /// Kubernetes, with kubectl.
    Kubectl,
    /// A service of systemd.
    Systemd,
}

impl Place {
    /// Every place.
    pub const ALL: [Self; 5] = [Self::Env, Self::Docker, Self::Helm, Self::Kubectl, Self::Systemd];

    /// The word on command lines.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Env => "env",
            Self::Docker => "docker",
            Self::Helm => "helm",
            Self::Kubectl => "kubectl",
            Self::Systemd => "systemd",
        }
    }

    /// What it is, in a few words.
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Env => "A shell",
            Self::Docker => "Docker or Podman",
            Self::Helm => "Kubernetes, with Helm",
            Self::Kubectl => "Kubernetes, with kubectl",
            Self::Systemd => "A service of systemd",
        }
    }

    const fn template(self) -> &'static str {
        match self {
            Self::Env => ENV,
            Self::Docker => DOCKER,
            Self::Helm => HELM,
            Self::Kubectl => KUBECTL,
            Self::Systemd => SYSTEMD,
        }
    }
}

/// What the commands need to know.
#[derive(Clone, Copy, Debug)]
pub struct Handover<'a> {
    /// Where delegates connect.
    pub link: &'a str,
    /// The delegate's name.
    pub name: &'a str,
    /// Where the value is had for a one-time code, if it is under one.
    pub unwrap_at: Option<&'a str>,
}

impl Handover<'_> {
    /// The commands for a place.
    pub fn commands(&self, place: Place) -> String {
        let mut text = self.unwrap_at.map(unwrap).unwrap_or_default();
        self.fill(place.template(), &mut text);
        text
    }

    /// Copies a template in one pass: what is filled in is never looked at again.
    fn fill(&self, template: &str, text: &mut String) {
        let label = label(self.name);
        let mut rest = template;
        while let Some(open) = rest.find('{') {
            let (before, from) = rest.split_at(open);
            text.push_str(before);
            let words = [("{file}", FILE), ("{url}", self.link), ("{name}", self.name), ("{label}", label.as_str())];
            let word = words.into_iter().find(|(word, _)| from.starts_with(word));
            let (read, written) = word.map_or(("{", "{"), |found| found);
            text.push_str(written);
            rest = &from[read.len()..];
        }
        text.push_str(rest);
    }
}

/// The command that exchanges a one-time code, which it asks for, for the file with the value.
pub fn unwrap(api: &str) -> String {
    format!("(umask 077; legation token unwrap --url {api} > {FILE})\n")
}

/// A name as Kubernetes and Docker take it.
fn label(name: &str) -> String {
    let kept = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
    let text: String = name.chars().map(kept).take(LABEL_MAX).collect();
    let text = text.trim_matches('-');
    // The first character of a service's name is a letter.
    if text.starts_with(|c: char| c.is_ascii_lowercase()) { text.to_owned() } else { format!("delegate-{text}") }
}

/// What to paste, for each kind of place. None of it has the value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Commands {
    /// Where the delegate connects, as the commands say it.
    pub manager: String,
    /// What to do first, where the Manager has not been told its own address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// For a shell.
    pub env: String,
    /// For Docker or Podman.
    pub docker: String,
    /// For Kubernetes, with Helm.
    pub helm: String,
    /// For Kubernetes, with kubectl.
    pub kubectl: String,
    /// For a service of systemd.
    pub systemd: String,
}

impl Commands {
    /// The commands for a token of this name. `link` is where delegates connect and `api` where the API is, as far as they
    /// are known; `wrapped` says that the value is under a one-time code.
    pub fn new(name: &Name, link: Option<&str>, api: Option<&str>, wrapped: bool) -> Self {
        let unwrap_at = wrapped.then_some(api.unwrap_or(UNKNOWN_URL));
        let handover = Handover { link: link.unwrap_or(UNKNOWN_URL), name: name.as_str(), unwrap_at };
        let known = link.is_some() && (api.is_some() || !wrapped);
        Self {
            manager: handover.link.to_owned(),
            note: (!known).then(|| NOTE.replace("{url}", UNKNOWN_URL)),
            env: handover.commands(Place::Env),
            docker: handover.commands(Place::Docker),
            helm: handover.commands(Place::Helm),
            kubectl: handover.commands(Place::Kubectl),
            systemd: handover.commands(Place::Systemd),
        }
    }

    /// Those for one place.
    pub fn of(&self, place: Place) -> &str {
        match place {
            Place::Env => &self.env,
            Place::Docker => &self.docker,
            Place::Helm => &self.helm,
            Place::Kubectl => &self.kubectl,
            Place::Systemd => &self.systemd,
        }
    }
}

const NOTE: &str = "replace {url} by the Manager's address; with the settings public-url and, for a link listener of its \
                    own, public-link-url the Manager fills it in";

const ENV: &str = r#"# {file}: the value, readable by its owner alone (umask 077)
export DELEGATE_TOKEN_FILE="$PWD/{file}" MANAGER_HOST_AND_PORT={url} DELEGATE_NAME={name}
legation-delegate
"#;

const DOCKER: &str = r#"# {file}: the value, readable by its owner alone; IMAGE: your image of legation-delegate
docker run --detach --name {label} --restart unless-stopped --stop-timeout 40 \
  --volume "$PWD/{file}:/run/secrets/delegate-token:ro" --volume {label}-state:/var/lib/legation-delegate \
  --env DELEGATE_TOKEN_FILE=/run/secrets/delegate-token --env DELEGATE_STATE_DIR=/var/lib/legation-delegate \
  --env MANAGER_HOST_AND_PORT={url} --env DELEGATE_NAME={name} --env DELEGATE_ON_REVOKED=park \
  "${IMAGE:?name your image of legation-delegate}"
"#;

const HELM: &str = r#"# {file}: the value; IMAGE and TAG: your image of legation-delegate; the chart is in Legation's sources
kubectl create secret generic {label}-token --from-file=token={file} && shred -u {file}
helm upgrade --install {label} deploy/helm/legation-delegate \
  --set-string token.existingSecret={label}-token,manager.url={url},name={name} \
  --set-string image.repository="${IMAGE:?name your image of legation-delegate}",image.tag="${TAG:?name its tag}"
"#;

const KUBECTL: &str = r#"# {file}: the value; IMAGE: your image of legation-delegate
kubectl create secret generic {label}-token --from-file=token={file} && shred -u {file}
kubectl apply -f - <<END
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: {label}}
spec:
  serviceName: {label}
  replicas: 1
  selector: {matchLabels: {app: {label}}}
  template:
    metadata: {labels: {app: {label}}}
    spec:
      automountServiceAccountToken: false
      terminationGracePeriodSeconds: 40
      securityContext:
        runAsNonRoot: true
        runAsUser: 65532
        runAsGroup: 65532
        fsGroup: 65532
        seccompProfile: {type: RuntimeDefault}
      containers:
      - name: delegate
        image: ${IMAGE:?name your image of legation-delegate}
        securityContext:
          allowPrivilegeEscalation: false
          readOnlyRootFilesystem: true
          capabilities: {drop: [ALL]}
        env:
        - {name: MANAGER_HOST_AND_PORT, value: "{url}"}
        - {name: DELEGATE_NAME, value: "{name}"}
        - {name: DELEGATE_TOKEN_FILE, value: /run/secrets/delegate/token}
        - {name: DELEGATE_STATE_DIR, value: /var/lib/legation-delegate/state}
        - {name: DELEGATE_ON_REVOKED, value: park}
        - {name: DELEGATE_HEALTH_ADDR, value: "0.0.0.0:7431"}
        - {name: HOME, value: /tmp}
        readinessProbe: {httpGet: {path: /readyz, port: 7431}, periodSeconds: 5}
        livenessProbe: {httpGet: {path: /healthz, port: 7431}, periodSeconds: 20}
        volumeMounts:
        - {name: token, mountPath: /run/secrets/delegate, readOnly: true}
        - {name: state, mountPath: /var/lib/legation-delegate}
        - {name: scratch, mountPath: /tmp}
      volumes:
      - {name: token, secret: {secretName: {label}-token, defaultMode: 0440}}
      - {name: scratch, emptyDir: {sizeLimit: 1Gi}}
  volumeClaimTemplates:
  - metadata: {name: state}
    spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
END
"#;

const SYSTEMD: &str = r#"# {file}: the value; as root
useradd --system --no-create-home legation-delegate
install -D -m 0600 {file} /etc/legation-delegate/token && shred -u {file}
cat > /etc/systemd/system/legation-delegate.service <<'END'
[Unit]
Description=Legation Delegate
After=network-online.target
Wants=network-online.target

[Service]
User=legation-delegate
Environment=MANAGER_HOST_AND_PORT={url}
Environment=DELEGATE_NAME={name}
Environment=DELEGATE_STATE_DIR=/var/lib/legation-delegate
LoadCredential=token:/etc/legation-delegate/token
Environment=DELEGATE_TOKEN_FILE=%d/token
ExecStart=/usr/local/bin/legation-delegate
StateDirectory=legation-delegate
StateDirectoryMode=0700
Restart=on-failure
RestartPreventExitStatus=64 78
KillMode=mixed
TimeoutStopSec=40
LimitCORE=0

[Install]
WantedBy=multi-user.target
END
systemctl daemon-reload && systemctl enable --now legation-delegate
"#;

#[cfg(test)]
mod tests {
    use super::*;

    fn handover(name: &str) -> Handover<'_> {
        Handover { link: "https://manager.example:7430", name, unwrap_at: None }
    }

    #[test]
    fn every_place_gets_the_file_the_address_and_the_name() {
        for place in Place::ALL {
            let text = handover("farm").commands(place);
            for part in ["https://manager.example:7430", "farm", FILE] {
                assert!(text.contains(part), "{place:?} lacks {part}");
            }
            for left in ["{file}", "{url}", "{name}", "{label}"] {
                assert!(!text.contains(left), "{text}");
            }
            // Its variable would hold the value itself.
            assert!(!text.contains("DELEGATE_TOKEN="), "{text}");
            assert!(!text.contains("unwrap"));
            let wrapped = Handover { unwrap_at: Some("https://api.example"), ..handover("farm") }.commands(place);
            let first = "(umask 077; legation token unwrap --url https://api.example > delegate.token)\n";
            assert_eq!(wrapped.strip_prefix(first), Some(text.as_str()));
        }
    }

    #[test]
    fn any_name_of_a_token_becomes_a_name_for_objects() {
        for (name, expected) in [
            ("farm", "farm"),
            ("default_token", "default-token"),
            ("Build.Farm:7", "build-farm-7"),
            ("7up", "delegate-7up"),
            ("a=", "a"),
            ("1", "delegate-1"),
        ] {
            assert_eq!(label(name), expected);
        }
        assert!(label(&"x".repeat(128)).len() <= LABEL_MAX + 9);
    }

    #[test]
    fn an_address_that_is_not_known_is_said_to_be_missing() {
        let name = "farm".parse().expect("a name");
        let unknown = Commands::new(&name, None, None, false);
        assert!(unknown.env.contains(UNKNOWN_URL) && unknown.note.expect("a note").contains("public-url"));
        let known = Commands::new(&name, Some("https://m"), None, false);
        assert_eq!((known.manager.as_str(), &known.note), ("https://m", &None));
        assert!(Commands::new(&name, Some("https://m"), None, true).note.is_some(), "where would the code be opened?");
        assert!(Place::ALL.into_iter().all(|place| known.of(place).contains("https://m")));
    }

    /// The unit is the one that the manual explains.
    #[test]
    fn the_unit_has_the_lines_of_the_manual() {
        let manual =
            std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/operate.md")).expect("a manual");
        let unit = Handover { link: "https://manager.example.com:7430", ..handover("%H") }.commands(Place::Systemd);
        let unit = unit.split("<<'END'\n").nth(1).and_then(|rest| rest.split("END\n").next()).expect("a unit");
        assert!(manual.contains(unit), "docs/operate.md has another unit than:\n{unit}");
    }
}
