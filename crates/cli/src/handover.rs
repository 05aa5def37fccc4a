//! What to paste where a delegate is to run, for a token's value that lies in a file.
//!
//! The value itself is in none of it: on a command line it would be in the shell's history and in the list of processes,
//! and in a manifest it would be committed.

use clap::ValueEnum;

/// Where a delegate is to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Place {
    /// A shell
    Env,
    /// Docker or Podman
    Docker,
    /// Kubernetes, with kubectl
    Kubectl,
    /// A service of systemd
    Systemd,
}

/// The file that the value is expected in.
pub const FILE: &str = "delegate.token";

/// The commands for a place; `url` is the Manager's address, `name` the delegate's.
pub fn commands(place: Place, url: &str, name: &str) -> String {
    let text = match place {
        Place::Env => ENV,
        Place::Docker => DOCKER,
        Place::Kubectl => KUBECTL,
        Place::Systemd => SYSTEMD,
    };
    text.replace("{file}", FILE).replace("{url}", url).replace("{name}", name)
}

/// How to start a delegate with the value in the file, for somebody who knows the rest.
pub fn start(url: &str) -> [String; 2] {
    [
        format!("keep the value in a file that only its reader can open ({FILE}), then start a delegate:"),
        format!("DELEGATE_TOKEN_FILE={FILE} MANAGER_HOST_AND_PORT={url} legation-delegate"),
    ]
}

const ENV: &str = r#"# {file}: the value, readable by its owner alone (umask 077)
export DELEGATE_TOKEN_FILE="$PWD/{file}" MANAGER_HOST_AND_PORT={url} DELEGATE_NAME={name}
legation-delegate
"#;

const DOCKER: &str = r#"# {file}: the value, readable by its owner alone; IMAGE: your image of legation-delegate
docker run --detach --name {name} --restart unless-stopped \
  --volume "$PWD/{file}:/run/secrets/delegate-token:ro" --volume {name}-state:/var/lib/legation-delegate \
  --env DELEGATE_TOKEN_FILE=/run/secrets/delegate-token --env DELEGATE_STATE_DIR=/var/lib/legation-delegate \
  --env MANAGER_HOST_AND_PORT={url} --env DELEGATE_NAME={name} --env DELEGATE_ON_REVOKED=park \
  "${IMAGE:?name your image of legation-delegate}"
"#;

const KUBECTL: &str = r#"# {file}: the value; IMAGE: your image of legation-delegate
kubectl create secret generic {name}-token --from-file=token={file}
kubectl apply -f - <<END
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: {name}}
spec:
  serviceName: {name}
  replicas: 1
  selector: {matchLabels: {app: {name}}}
  template:
    metadata: {labels: {app: {name}}}
    spec:
      automountServiceAccountToken: false
      containers:
      - name: delegate
        image: ${IMAGE:?name your image of legation-delegate}
        env:
        - {name: MANAGER_HOST_AND_PORT, value: "{url}"}
        - {name: DELEGATE_NAME, value: {name}}
        - {name: DELEGATE_TOKEN_FILE, value: /run/secrets/delegate/token}
        - {name: DELEGATE_STATE_DIR, value: /var/lib/legation-delegate}
        - {name: DELEGATE_ON_REVOKED, value: park}
        volumeMounts:
        - {name: token, mountPath: /run/secrets/delegate, readOnly: true}
        - {name: state, mountPath: /var/lib/legation-delegate}
      volumes:
      - {name: token, secret: {secretName: {name}-token, defaultMode: 0400}}
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

    #[test]
    fn every_place_gets_the_file_the_address_and_the_name() {
        for place in Place::value_variants() {
            let text = commands(*place, "https://manager.example:7430", "farm");
            for part in ["https://manager.example:7430", "farm", FILE, "DELEGATE_TOKEN_FILE"] {
                assert!(text.contains(part), "{place:?} lacks {part}");
            }
            assert!(!text.contains("{file}") && !text.contains("{url}"), "{text}");
            // Its variable would hold the value itself.
            assert!(!text.contains("DELEGATE_TOKEN="), "{text}");
        }
    }

    /// The unit is the one that the manual explains.
    #[test]
    fn the_unit_has_the_lines_of_the_manual() {
        let manual =
            std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/operate.md")).expect("a manual");
        let unit = commands(Place::Systemd, "https://manager.example.com:7430", "%H");
        let unit = unit.split("<<'END'\n").nth(1).and_then(|rest| rest.split("END\n").next()).expect("a unit");
        assert!(manual.contains(unit), "docs/operate.md has another unit than:\n{unit}");
    }
}
