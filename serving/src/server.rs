//! Serving a router on a socket until it is told to stop.

use std::future::Future;
use std::io;
use std::time::Duration;

use axum::Router;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

/// Serves until `shutdown` resolves. Then no connection is taken any more and requests in flight finish, for as long as
/// `grace` at the most.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    shutdown: impl Future<Output = ()> + Send + 'static,
    grace: Duration,
) -> io::Result<()> {
    let (tell, told) = oneshot::channel();
    let stop = async move {
        shutdown.await;
        let _ = tell.send(());
    };
    let late = async {
        // The sender is gone without a word only when the server has ended by itself.
        if told.await.is_err() {
            std::future::pending::<()>().await;
        }
        tokio::time::sleep(grace).await;
    };
    tokio::select! {
        ended = axum::serve(listener, router).with_graceful_shutdown(stop) => ended,
        () = late => {
            tracing::warn!(?grace, "requests were still running when the grace period ended");
            Ok(())
        }
    }
}
