//! Fetches verification keys periodically, outside the requests' path.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::time::sleep;

use super::route::SiteTable;
use crate::shutdown::{ShutdownWatch, requested};

/// The time between two looks at the table of sites.
const PAUSE: Duration = Duration::from_secs(1);

/// Fetches the keys of every server that the sites name when it is time, until `stopping` turns true.
pub async fn token_key_loop(sites: Arc<ArcSwap<SiteTable>>, mut stopping: ShutdownWatch) {
    loop {
        for server in &sites.load().key_servers {
            server.fetch_if_due();
        }
        tokio::select! {
            () = sleep(PAUSE) => {}
            () = requested(&mut stopping) => return,
        }
    }
}
