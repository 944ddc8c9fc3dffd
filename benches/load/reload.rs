//! How long packets of live sessions are held up by a reload, against the same time without one.

use std::io::ErrorKind;
use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::harness::{Site, V4, V6, one_policy};
use crate::{milliseconds, spread};

const ROUNDS: usize = 10;
/// Between two packets of the stream.
const STEP: Duration = Duration::from_micros(500);
const LONG: Duration = Duration::from_millis(400);

/// Sends a stream from a host to a server and back, now with a reload in its midst, now without.
pub(crate) fn measure() {
    for family in [V4, V6] {
        let profiles = [
            one_policy("uplinks: [cable, lte], persistence: { by: source }"),
            one_policy("uplinks: [cable], persistence: { by: source-destination }"),
        ];
        let site = Site::start(family, &profiles[1]);
        let socket = stream(&site);
        let (mut with, mut without, mut lost) = (Vec::new(), Vec::new(), 0);
        for round in 0..ROUNDS {
            without.push(longest(&socket, &mut lost, || {}));
            let change = || site.reload(&profiles[round % 2]);
            with.push(longest(&socket, &mut lost, change));
        }
        let gains: Vec<f64> =
            with.iter().zip(&without).map(|(w, o)| milliseconds(*w) - milliseconds(*o)).collect();
        println!("longest way there and back, reload,    {family:?}: {}", spread(with));
        println!("longest way there and back, no reload, {family:?}: {}", spread(without));
        println!("  the reload adds: median {:.2} ms; packets lost: {lost}", median(gains));
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn stream(site: &Site) -> UdpSocket {
    let (from, to) = (site.host(1), site.server(0, 53));
    let open = || {
        let socket = UdpSocket::bind((from, 0))?;
        socket.connect(to)?;
        socket.set_read_timeout(Some(Duration::from_secs(1)))?;
        Ok::<_, std::io::Error>(socket)
    };
    site.stage.layout().lan().enter(open).unwrap().unwrap()
}

/// The longest time from sending until the answer, over a while with `change` in it.
fn longest(socket: &UdpSocket, lost: &mut u64, change: impl FnOnce()) -> Duration {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let talking = scope.spawn(|| {
            let (begun, mut longest, mut missing) = (Instant::now(), Duration::ZERO, 0);
            while begun.elapsed() < LONG || !stop.load(Ordering::Relaxed) {
                let (sent, mut answer) = (Instant::now(), [0; 64]);
                socket.send(b"?").unwrap();
                match socket.recv(&mut answer) {
                    Ok(_) => longest = longest.max(sent.elapsed()),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => missing += 1,
                    Err(error) => panic!("the stream ended: {error}"),
                }
                thread::sleep(STEP.saturating_sub(sent.elapsed()));
            }
            (longest, missing)
        });
        thread::sleep(LONG / 4);
        change();
        stop.store(true, Ordering::Relaxed);
        let (longest, missing) = talking.join().unwrap();
        *lost += missing;
        longest
    })
}
