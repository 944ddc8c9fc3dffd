//! A resolver that keeps callers waiting, each as long as it is told.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use homing::lab::Namespace;

/// A resolver that knows nothing, and says so without error. It ends when dropped.
pub struct Resolver {
    delays: Arc<Mutex<BTreeMap<IpAddr, Duration>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Resolver {
    /// At an address that is given to the namespace.
    pub fn start(space: &Namespace, address: IpAddr) -> Resolver {
        let whole = if address.is_ipv4() { 32 } else { 128 };
        let nodad = if address.is_ipv4() { "" } else { " nodad" };
        space.ip(&[format!("addr add {address}/{whole} dev lo{nodad}")]).unwrap();
        let bind = || UdpSocket::bind(SocketAddr::new(address, 53));
        let socket = space.enter(bind).unwrap().unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let (delays, stop) = (Arc::default(), Arc::new(AtomicBool::new(false)));
        let thread = {
            let (delays, stop) = (Arc::clone(&delays), Arc::clone(&stop));
            thread::spawn(move || serve(&socket, &delays, &stop))
        };
        Resolver { delays, stop, thread: Some(thread) }
    }

    /// From now on this caller is answered after so long; until then at once.
    pub fn delay(&self, caller: IpAddr, delay: Duration) {
        self.delays.lock().unwrap().insert(caller, delay);
    }
}

impl Drop for Resolver {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve(socket: &UdpSocket, delays: &Mutex<BTreeMap<IpAddr, Duration>>, stop: &AtomicBool) {
    thread::scope(|scope| {
        let mut buffer = [0; 512];
        while !stop.load(Ordering::Relaxed) {
            let Ok((length, caller)) = socket.recv_from(&mut buffer) else { continue };
            let after = delays.lock().unwrap().get(&caller.ip().to_canonical()).copied();
            let mut answer = buffer[..length].to_vec();
            if length < 4 {
                continue;
            }
            answer[2] |= 0x80;
            answer[3] = 0x80;
            scope.spawn(move || {
                thread::sleep(after.unwrap_or_default());
                let _ = socket.send_to(&answer, caller);
            });
        }
    });
}
