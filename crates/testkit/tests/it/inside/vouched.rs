//! What the Manager remembers of keys and sessions, for a revocation while the store is gone.

use legation_api::{Code, client::Client};
use legation_testkit::{Engine, Inside};

use super::{
    raw::{key_of, login_of, principal},
    store::{code, take_away},
};

super::on_both!(sessions_that_have_ended_leave_room_for_new_keys);

/// As many as are remembered at once.
const REMEMBERED: usize = 1024;

async fn sessions_that_have_ended_leave_room_for_new_keys(engine: Engine) {
    let inside = Inside::start(engine).await;
    let token = inside.token("t").await;
    let owner = principal(&inside, &[("admin", None)]).await;
    for _ in 0..REMEMBERED {
        let login = login_of(&inside, owner).await;
        inside.manager.authenticate(login.reveal().expose(), String::new()).await.expect("it counts");
    }
    inside.clock.advance(inside.manager.config.console.lifetime);
    let key = key_of(&inside, owner, None, None).await.reveal();
    let by_key = Client::new(&inside.url, Some(&key), None).expect("a client");
    by_key.whoami().await.expect("used once");
    take_away(&inside, true).await;
    assert_eq!(code(by_key.revoke_token(token.id, &Default::default()).await), Code::RevokedNotDurable);
    take_away(&inside, false).await;
}
