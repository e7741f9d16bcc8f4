//! Serves the metrics over HTTP from one thread with bounded memory, so that no client can stop the training.
//!
//! The thread waits for all its connections at once. Each has a time to send its request and a time to take the
//! response; beyond [`Limits::connections`] the answer is 503. The page is made at most ten times a second.

#[cfg(test)]
mod tests;

use super::request::{Answer, MAX_HEAD, answer, response};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// What a client may take up, and how often the server looks after itself.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections that are served at once.
    pub connections: usize,
    /// Time for the request's head.
    pub request: Duration,
    /// Time to take the response.
    pub response: Duration,
    /// Time between upkeeps, and between tries to listen where that failed.
    pub upkeep: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        let seconds = Duration::from_secs(5);
        Self { connections: 32, request: seconds, response: seconds, upkeep: seconds }
    }
}

/// Time in which a page is not made again.
const FRESH: Duration = Duration::from_millis(100);
/// Time in which what a client still sends is thrown away, so that it can read the response.
const LINGER: Duration = Duration::from_secs(1);
/// Time for which nothing is served after a first panic; after each it is twice as long.
const AFTER_PANIC: Duration = Duration::from_millis(500);
/// The longest such time.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// The most bytes that are thrown away so.
const MAX_THROWN_AWAY: usize = 4 << 20;

/// What is served.
pub trait Pages: Send + 'static {
    /// The page `/metrics`.
    fn metrics(&self) -> String;
    /// Called every few seconds.
    fn run_upkeep(&self);
}

/// A server, until it is dropped: then its thread has ended and its port is free.
#[derive(Debug)]
pub struct Server {
    stop: Option<UnixStream>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Serves on the listener; without one it tries again and again to listen on the address.
    ///
    /// # Errors
    ///
    /// The system refuses a thread or a descriptor.
    pub fn start(
        address: SocketAddr,
        listener: Option<TcpListener>,
        limits: Limits,
        pages: impl Pages,
    ) -> std::io::Result<Self> {
        listener.as_ref().map_or(Ok(()), |listener| listener.set_nonblocking(true))?;
        let (stop, stopped) = UnixStream::pair()?;
        let mut serving = Serving {
            address,
            listener,
            limits,
            pages,
            page: None,
            stopped,
            connections: vec![],
            upkeep: Instant::now() + limits.upkeep,
        };
        let thread = std::thread::Builder::new().name("metrics".into()).spawn(move || serving.run_on())?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic in there concerns the metrics only.
            let _ = thread.join();
        }
    }
}

/// The thread's state.
struct Serving<P> {
    address: SocketAddr,
    listener: Option<TcpListener>,
    limits: Limits,
    pages: P,
    page: Option<(Instant, String)>,
    /// Its other end is closed when the server is to stop.
    stopped: UnixStream,
    connections: Vec<Connection>,
    upkeep: Instant,
}

impl<P: Pages> Serving<P> {
    /// Runs until it is stopped, again after a panic: that concerns the clients of that moment, and not the run.
    fn run_on(&mut self) {
        let mut pause = AFTER_PANIC;
        while catch_unwind(AssertUnwindSafe(|| self.run())).is_err() {
            self.connections.clear();
            self.page = None;
            let mut waits = [PollFd::new(&self.stopped, PollFlags::IN)];
            let _ = poll(&mut waits, Timespec::try_from(pause).ok().as_ref());
            if !waits[0].revents().is_empty() {
                break;
            }
            pause = (2 * pause).min(LONGEST_PAUSE);
        }
    }

    fn run(&mut self) {
        while !self.wait() {
            self.accept();
            let now = Instant::now();
            let (limits, pages, page) = (self.limits, &self.pages, &mut self.page);
            let mut metrics = || fresh(page, pages);
            self.connections.retain_mut(|connection| connection.go_on(now, &limits, &mut metrics));
            if now >= self.upkeep {
                self.upkeep = now + limits.upkeep;
                self.pages.run_upkeep();
                self.listen();
            }
        }
    }

    /// Sleeps until something happens or is due; whether the server is to stop.
    fn wait(&self) -> bool {
        let due = self.connections.iter().map(|connection| connection.deadline).fold(self.upkeep, Instant::min);
        let timeout = Timespec::try_from(due.saturating_duration_since(Instant::now()));
        let mut waits = vec![PollFd::new(&self.stopped, PollFlags::IN)];
        if let (Some(listener), true) = (&self.listener, self.has_room()) {
            waits.push(PollFd::new(listener, PollFlags::IN));
        }
        waits.extend(self.connections.iter().map(|connection| PollFd::new(&connection.stream, connection.waits_for())));
        // An interrupted wait is one that something happened in.
        let _ = poll(&mut waits, timeout.ok().as_ref());
        !waits[0].revents().is_empty()
    }

    /// Refused connections linger beside the served ones, and no more than as many; others stay in the system's queue.
    fn has_room(&self) -> bool {
        self.connections.len() < 2 * self.limits.connections
    }

    fn accept(&mut self) {
        while let (Some(listener), true) = (&self.listener, self.has_room()) {
            match listener.accept() {
                Ok((stream, _)) if stream.set_nonblocking(true).is_ok() => {
                    let served = self.connections.iter().filter(|connection| !connection.is_ending()).count();
                    let is_full = served >= self.limits.connections;
                    self.connections.push(Connection::new(stream, &self.limits, is_full));
                }
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => {
                    // No descriptor is free, for example: the connection stays in the queue.
                    std::thread::sleep(FRESH);
                    return;
                }
            }
        }
    }

    fn listen(&mut self) {
        if self.listener.is_none() {
            let listener = TcpListener::bind(self.address);
            self.listener = listener.ok().filter(|listener| listener.set_nonblocking(true).is_ok());
        }
    }
}

/// The page, made again where the last one is old.
fn fresh(page: &mut Option<(Instant, String)>, pages: &impl Pages) -> String {
    match page {
        Some((made, text)) if made.elapsed() < FRESH => text.clone(),
        _ => page.insert((Instant::now(), pages.metrics())).1.clone(),
    }
}

/// One client.
struct Connection {
    stream: TcpStream,
    state: State,
    deadline: Instant,
}

enum State {
    /// The bytes of the request so far.
    Request(Vec<u8>),
    /// The response, and how much of it is sent.
    Response(Vec<u8>, usize),
    /// All is sent; what still comes is thrown away, up to this many bytes.
    Ending(usize),
}

impl Connection {
    fn new(stream: TcpStream, limits: &Limits, is_full: bool) -> Self {
        let deadline = Instant::now() + if is_full { LINGER } else { limits.request };
        let mut connection = Self { stream, state: State::Request(vec![]), deadline };
        if is_full {
            // A new connection has room for so short a response; where not, its client does without.
            let _ = connection.stream.write(&response(Answer::Busy, &mut String::new));
            connection.end();
        }
        connection
    }

    fn is_ending(&self) -> bool {
        matches!(self.state, State::Ending(_))
    }

    fn waits_for(&self) -> PollFlags {
        match self.state {
            State::Response(..) => PollFlags::OUT,
            _ => PollFlags::IN,
        }
    }

    /// Does what can be done now; whether the connection stays.
    fn go_on(&mut self, now: Instant, limits: &Limits, metrics: &mut dyn FnMut() -> String) -> bool {
        if let State::Request(head) = &mut self.state {
            let Ok(came) = read(&mut self.stream, head) else { return false };
            let late = (now >= self.deadline).then_some(Answer::Late);
            let Some(answer) = answer(head).or(late) else { return came == Came::Some };
            self.state = State::Response(response(answer, metrics), 0);
            self.deadline = now + limits.response;
        }
        if let State::Response(bytes, sent) = &mut self.state {
            let Ok(count) = write(&mut self.stream, &bytes[*sent..]) else { return false };
            *sent += count;
            if *sent < bytes.len() {
                return now < self.deadline;
            }
            self.end();
        }
        match &mut self.state {
            State::Ending(left) => now < self.deadline && throw_away(&mut self.stream, left) == Ok(Came::Some),
            _ => true,
        }
    }

    fn end(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Write);
        self.state = State::Ending(MAX_THROWN_AWAY);
        self.deadline = Instant::now() + LINGER;
    }
}

/// The connection is of no more use.
#[derive(Debug, PartialEq)]
struct Closed;

/// How reading ended.
#[derive(Debug, PartialEq)]
enum Came {
    /// More may come.
    Some,
    /// The client sends no more.
    All,
}

/// Reads what is there into the head, up to a little more than it may hold.
fn read(stream: &mut TcpStream, head: &mut Vec<u8>) -> Result<Came, Closed> {
    let mut buffer = [0; 1024];
    while head.len() <= MAX_HEAD {
        match read_some(stream, &mut buffer)? {
            None => return Ok(Came::Some),
            Some(0) => return Ok(Came::All),
            Some(count) => head.extend_from_slice(&buffer[..count]),
        }
    }
    Ok(Came::Some)
}

/// Throws away what is there, at most `left` bytes in all.
fn throw_away(stream: &mut TcpStream, left: &mut usize) -> Result<Came, Closed> {
    let mut buffer = [0; 16 << 10];
    while *left > 0 {
        match read_some(stream, &mut buffer)? {
            None => return Ok(Came::Some),
            Some(0) => return Ok(Came::All),
            Some(count) => *left = left.saturating_sub(count),
        }
    }
    Err(Closed)
}

/// The number of bytes that were there, 0 at the end; `None` where one would have to wait.
fn read_some(stream: &mut TcpStream, buffer: &mut [u8]) -> Result<Option<usize>, Closed> {
    match stream.read(buffer) {
        Ok(count) => Ok(Some(count)),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(None),
        Err(_) => Err(Closed),
    }
}

/// Writes as much as goes.
fn write(stream: &mut TcpStream, bytes: &[u8]) -> Result<usize, Closed> {
    match stream.write(bytes) {
        Ok(count) => Ok(count),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(0),
        Err(_) => Err(Closed),
    }
}
