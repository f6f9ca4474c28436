//! Ctrl-C and SIGTERM: the first ends the measurement in good order, a second one the program at once.

use std::io;
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;

use tokio::runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// A flag that is set by the first signal.
///
/// # Errors
/// When the system refuses to tell of signals.
pub fn flag() -> io::Result<Arc<AtomicBool>> {
    let flag = Arc::new(AtomicBool::new(false));
    let shared = Arc::clone(&flag);
    let (sender, ready) = mpsc::channel();
    thread::spawn(move || {
        let runtime = match runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => return drop(sender.send(Err(error))),
        };
        runtime.block_on(async {
            let signals =
                signal(SignalKind::interrupt()).and_then(|first| Ok((first, signal(SignalKind::terminate())?)));
            let (mut interrupt, mut terminate) = match signals {
                Ok(signals) => signals,
                Err(error) => return drop(sender.send(Err(error))),
            };
            drop(sender.send(Ok(())));
            either(&mut interrupt, &mut terminate).await;
            shared.store(true, Ordering::Relaxed);
            either(&mut interrupt, &mut terminate).await;
            // Steps end with this process.
            process::exit(1);
        });
    });
    ready.recv().map_err(io::Error::other)??;
    Ok(flag)
}

async fn either(interrupt: &mut Signal, terminate: &mut Signal) {
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}
