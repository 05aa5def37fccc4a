//! `legation up`: a Manager and one delegate on this machine, from nothing to a first task.
//!
//! The directories hold everything, so that a second run finds all as it was. Both children run in process
//! groups of their own, so that a Ctrl-C reaches only this process, which then stops them in order. They are
//! told by `LEGATION_EXIT_WITH_PARENT=1` to ask the kernel for a signal when this process is gone, however it
//! went: the kernel watches the *thread* that started them, which is why the program has only one.

mod admin;
mod child;
mod places;
mod token;

use std::{net::TcpListener, path::PathBuf, time::Duration};

use clap::Args;
use legation_api::{
    client::Client,
    delegates::DelegatesQuery,
    tasks::{Shell, SubmitTask, Work},
};
use legation_model::{Name, ids::TokenId};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::{Instant, sleep},
};

use self::{child::Child, places::Places};
use crate::{
    Context, Failure, args::default_scope, config::LISTEN_DEFAULT, exit_codes, task_run::watch::Watch, ui::Ui,
};

/// The name of the one delegate.
const DELEGATE_NAME: &str = "local";
/// How long a child may take to become ready: the Manager migrates its database, the delegate shakes hands.
const READY_LIMIT: Duration = Duration::from_secs(30);
/// How often readiness is looked at.
const POLL: Duration = Duration::from_millis(50);
/// How long the delegate may take to stop: it drains its tasks for 25 s.
const DELEGATE_STOP: Duration = Duration::from_secs(30);
/// How long the Manager may take to stop: nothing is connected any more.
const MANAGER_STOP: Duration = Duration::from_secs(15);
/// The delegate's exit code when its token was refused (EX_CONFIG).
const REFUSED_TOKEN: i32 = 78;

/// Where everything lives.
#[derive(Debug, Args)]
pub struct Up {
    /// Address and port of the Manager; port 0 takes any free one
    #[arg(long, env = "LEGATION_LISTEN", hide_env_values = true, default_value = LISTEN_DEFAULT)]
    listen: String,
    /// Directory for the database and logs [default: $XDG_DATA_HOME/legation or ~/.local/share/legation]
    #[arg(long, env = "LEGATION_DATA_DIR", hide_env_values = true, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Directory for keys and cli.toml [default: $XDG_CONFIG_HOME/legation or ~/.config/legation]
    #[arg(long, env = "LEGATION_CONFIG_DIR", hide_env_values = true, value_name = "DIR")]
    config_dir: Option<PathBuf>,
}

/// What ends the stay.
enum End {
    Asked,
    Manager(String),
    Delegate(Option<i32>, String),
}

struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> Result<Self, Failure> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn any(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }
}

impl Up {
    /// Starts both, stays until asked to stop, stops both.
    ///
    /// # Errors
    /// Whatever keeps them from running, in one sentence; nothing is left running then.
    pub async fn run(self, ui: &Ui) -> Result<u8, Failure> {
        let mut signals = Signals::new()?;
        let places = Places::prepare(self.data_dir, self.config_dir, &self.listen)?;
        let mut running = Running { manager: None, delegate: None };
        let result = tokio::select! {
            result = running.start_and_stay(&places, ui) => result,
            () = signals.any() => Ok(exit_codes::OK),
        };
        running.stop(ui, &mut signals).await;
        result
    }
}

/// The two children, as far as they are started.
struct Running {
    manager: Option<Child>,
    delegate: Option<Child>,
}

impl Running {
    async fn start_and_stay(&mut self, places: &Places, ui: &Ui) -> Result<u8, Failure> {
        check_port(&places.listen)?;
        let mut settings = admin::settings(places, ui).await?;
        let manager = self.manager.insert(child::manager(places)?);
        let url = await_ready(manager, places).await?;
        let client = admin::client(places, &mut settings, &url, ui).await?;
        ui.note(&format!("Manager   {url}  data {}  keys {}", places.data.display(), places.config.display()));

        let token = token::ensure(places, &client, ui).await?;
        let delegate = self.delegate.insert(child::delegate(places, &url)?);
        await_connected(delegate, self.manager.as_mut(), &client, token).await?;
        ui.note(&format!("Delegate  {DELEGATE_NAME}, connected"));

        first_task(&client, ui).await?;
        ui.note_lines(&advice(places, token));
        self.stay(ui).await
    }

    /// Waits for a child to end. A delegate that obeys a revocation has done its duty: the Manager stays.
    async fn stay(&mut self, ui: &Ui) -> Result<u8, Failure> {
        loop {
            match self.next_end().await {
                End::Asked => return Ok(exit_codes::OK),
                End::Manager(log) => return Err(died("the Manager", None, &log)),
                End::Delegate(Some(REFUSED_TOKEN), _) => {
                    self.delegate = None;
                    ui.note(
                        "Delegate  stopped, because its token no longer admits it; the Manager stays up. \
                         The next `legation up` makes a new token.",
                    );
                }
                End::Delegate(code, log) => return Err(died("the delegate", code, &log)),
            }
        }
    }

    async fn next_end(&mut self) -> End {
        match (&mut self.manager, &mut self.delegate) {
            (Some(manager), Some(delegate)) => tokio::select! {
                _ = manager.wait() => End::Manager(manager.last_lines()),
                code = delegate.wait() => End::Delegate(code, delegate.last_lines()),
            },
            (Some(manager), None) => {
                manager.wait().await;
                End::Manager(manager.last_lines())
            }
            (None, _) => End::Asked,
        }
    }

    /// The delegate first, so that it can still report; a second signal ends both at once.
    async fn stop(&mut self, ui: &Ui, signals: &mut Signals) {
        if self.manager.is_some() || self.delegate.is_some() {
            ui.note("stopping; Ctrl-C again to stop at once");
        }
        let orderly = async {
            if let Some(delegate) = &mut self.delegate {
                delegate.stop(DELEGATE_STOP).await;
            }
            if let Some(manager) = &mut self.manager {
                manager.stop(MANAGER_STOP).await;
            }
        };
        tokio::select! {
            () = orderly => {}
            () = signals.any() => {}
        }
        for mut child in [self.delegate.take(), self.manager.take()].into_iter().flatten() {
            child.kill().await;
        }
    }
}

fn died(who: &str, code: Option<i32>, log: &str) -> Failure {
    let code = code.map(|code| format!(" (exit code {code})")).unwrap_or_default();
    let words = match log.trim() {
        "" => "it wrote nothing".to_owned(),
        log => format!("its last words: {}", log.replace('\n', " | ")),
    };
    let what = format!("{who} ended by itself{code}; {words}");
    Failure::new(
        exit_codes::CHILD_DIED,
        what,
        "look at its log in the data directory's logs, then run `legation up` again",
    )
}

/// A busy port is the most likely trouble; found here, it gets a sentence of its own.
fn check_port(listen: &str) -> Result<(), Failure> {
    let busy = |error: std::io::Error| {
        let what = format!("the Manager cannot listen on {listen}: {error}");
        Failure::new(
            exit_codes::CHILD_DIED,
            what,
            "stop what listens there, or choose another with --listen 127.0.0.1:0 \
             (LEGATION_LISTEN=127.0.0.1:0 make run)",
        )
    };
    TcpListener::bind(listen).map(drop).map_err(busy)
}

async fn await_ready(manager: &mut Child, places: &Places) -> Result<String, Failure> {
    let deadline = Instant::now() + READY_LIMIT;
    loop {
        if let Some(url) = places.ready_url() {
            return Ok(url);
        }
        if let Some(code) = manager.ended().await {
            return Err(died("the Manager", code, &manager.last_lines()));
        }
        if Instant::now() > deadline {
            let what = format!("the Manager did not become ready in {} s", READY_LIMIT.as_secs());
            return Err(Failure::new(
                exit_codes::CHILD_DIED,
                what,
                format!("look at {}", places.log("manager").display()),
            ));
        }
        sleep(POLL).await;
    }
}

async fn await_connected(
    delegate: &mut Child,
    mut manager: Option<&mut Child>,
    client: &Client,
    token: TokenId,
) -> Result<(), Failure> {
    let deadline = Instant::now() + READY_LIMIT;
    let query = DelegatesQuery {
        token: Some(token),
        name: Some(delegate_name()),
        connected: true,
        ..DelegatesQuery::default()
    };
    loop {
        if let Some(code) = delegate.ended().await {
            return Err(died("the delegate", code, &delegate.last_lines()));
        }
        if let Some(manager) = &mut manager
            && let Some(code) = manager.ended().await
        {
            return Err(died("the Manager", code, &manager.last_lines()));
        }
        if !client.delegates(&query).await?.items.is_empty() {
            return Ok(());
        }
        if Instant::now() > deadline {
            let what =
                format!("the delegate did not connect in {} s: {}", READY_LIMIT.as_secs(), delegate.last_lines());
            return Err(Failure::new(
                exit_codes::CHILD_DIED,
                what,
                "look at delegate.log in the data directory's logs",
            ));
        }
        sleep(POLL).await;
    }
}

fn delegate_name() -> Name {
    DELEGATE_NAME.parse().expect("a legal name")
}

/// Shows that everything works. A task that fails is shown, and no reason to stop.
async fn first_task(client: &Client, ui: &Ui) -> Result<(), Failure> {
    let script =
        "echo \"hello from delegate $(uname -n), a $(uname -s) machine\"; for n in 1 2 3; do echo \"line $n\"; done";
    let shell = Shell { script: script.to_owned(), ..Shell::default() };
    let mut request = SubmitTask::new(default_scope(), Work::Shell(shell));
    request.selectors = vec![DELEGATE_NAME.parse().expect("a legal selector")];
    ui.note("Task      legation task run --on local -- …");
    let task = client.submit_task(&request).await?;
    let context = Context { client: client.clone(), ui: ui.clone() };
    Watch::new(&context, task.id).run().await?;
    Ok(())
}

fn advice(places: &Places, token: TokenId) -> String {
    let program = places.program();
    format!(
        "\nEverything runs. In another terminal, try:\n\
         \n  {program} task run -- 'uname -a; for n in 1 2 3; do echo $n; sleep 1; done'\
         \n  {program} delegate ls\
         \n  {program} token create my-token\
         \n  {program} token revoke {token}    # ends this delegate; the next `up` starts one with a new token\
         \n  {program} --help\
         \n\nCtrl-C stops the delegate and the Manager; `{program} up` finds everything as it was."
    )
}
