//! The server against slow, hostile and many clients, on free ports of the loopback.

use super::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A page of this many bytes, and how often it was made and kept up.
#[derive(Clone)]
struct Page(usize, Arc<AtomicUsize>, Arc<AtomicUsize>);

impl Page {
    fn of(bytes: usize) -> Self {
        Self(bytes, Arc::default(), Arc::default())
    }
}

impl Pages for Page {
    fn metrics(&self) -> String {
        self.1.fetch_add(1, Ordering::Relaxed);
        "x".repeat(self.0)
    }

    fn run_upkeep(&self) {
        self.2.fetch_add(1, Ordering::Relaxed);
    }
}

const SOON: Duration = Duration::from_millis(150);

fn served(limits: Limits, page: Page) -> (SocketAddr, Server) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (address, Server::start(address, Some(listener), limits, page).unwrap())
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream
}

/// Everything that the server sends, to its end of the connection.
fn rest(mut stream: TcpStream) -> String {
    let mut bytes = vec![];
    stream.read_to_end(&mut bytes).unwrap();
    String::from_utf8(bytes).unwrap()
}

fn ask(address: SocketAddr, request: &[u8]) -> String {
    let mut stream = connect(address);
    stream.write_all(request).unwrap();
    rest(stream)
}

fn status(response: &str) -> &str {
    response.split(' ').nth(1).unwrap_or("no response")
}

/// Waits until something holds, at most ten seconds.
fn eventually(mut holds: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + Duration::from_secs(10);
    while Instant::now() < end {
        if holds() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    false
}

#[test]
fn pages_and_refusals() {
    let (address, _server) = served(Limits::default(), Page::of(3));
    let response = ask(address, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(response.contains("\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n"), "{response}");
    assert!(response.ends_with("\r\n\r\nxxx"), "{response}");
    assert!(ask(address, b"GET /healthz HTTP/1.0\r\n\r\n").ends_with("\r\n\r\nok\n"));
    let mut in_pieces = connect(address);
    for piece in [&b"GE"[..], b"T /metrics HTT", b"P/1.1\r\n\r", b"\n"] {
        in_pieces.write_all(piece).unwrap();
        std::thread::sleep(Duration::from_millis(2));
    }
    assert_eq!(status(&rest(in_pieces)), "200");
    let mut half_closed = connect(address);
    half_closed.write_all(b"GET /metrics HTTP/1.1\r\n\r\n").unwrap();
    half_closed.shutdown(Shutdown::Write).unwrap();
    assert_eq!(status(&rest(half_closed)), "200");
    let table: [(&[u8], &str); 5] = [
        (b"GET / HTTP/1.1\r\n\r\n", "404"),
        (b"GET /../metrics HTTP/1.1\r\n\r\n", "404"),
        (b"DELETE /metrics HTTP/1.1\r\n\r\n", "405"),
        (b"\x16\x03\x01\x02\0\x01\xff\xfe\n\n", "400"),
        (b"GET /metrics HTTP/1.1\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /x", "200"),
    ];
    for (request, expected) in table {
        assert_eq!(status(&ask(address, request)), expected, "{request:?}");
    }
}

#[test]
fn an_endless_request_line_is_refused_within_bounds() {
    let (address, _server) = served(Limits::default(), Page::of(3));
    let mut request = b"GET /".to_vec();
    request.resize(1 << 20, b'a');
    assert_eq!(status(&ask(address, &request)), "431");
    assert_eq!(status(&ask(address, b"GET /healthz HTTP/1.1\r\n\r\n")), "200");
}

#[test]
fn clients_that_wait_too_long_are_let_go() {
    let (address, _server) = served(Limits { request: SOON, response: SOON, ..Limits::default() }, Page::of(64 << 20));
    let (silent, mut half) = (connect(address), connect(address));
    half.write_all(b"GET /metr").unwrap();
    assert_eq!((status(&rest(silent)), status(&rest(half))), ("408", "408"));
    let mut reads_nothing = connect(address);
    reads_nothing.write_all(b"GET /metrics HTTP/1.1\r\n\r\n").unwrap();
    assert_eq!(status(&ask(address, b"GET /healthz HTTP/1.1\r\n\r\n")), "200");
    std::thread::sleep(3 * SOON);
    let mut received = vec![];
    let _ = reads_nothing.read_to_end(&mut received);
    assert!(received.len() < 64 << 20, "the slow client got the whole page");
    drop(connect(address));
    assert_eq!(status(&ask(address, b"GET /healthz HTTP/1.1\r\n\r\n")), "200");
}

#[test]
fn connections_beyond_the_limit_get_503() {
    let (address, server) = served(Limits { request: Duration::from_secs(60), ..Limits::default() }, Page::of(3));
    let idle: Vec<TcpStream> = (0..32).map(|_| connect(address)).collect();
    assert!(eventually(|| status(&rest(connect(address))) == "503"));
    let (mut busy, mut other) = (0, vec![]);
    for _ in 0..8 {
        match status(&ask(address, b"GET /metrics HTTP/1.1\r\n\r\n")) {
            "503" => busy += 1,
            found => other.push(found.to_owned()),
        }
    }
    assert_eq!((busy, other), (8, Vec::<String>::new()));
    drop(idle);
    assert!(eventually(|| status(&ask(address, b"GET /metrics HTTP/1.1\r\n\r\n")) == "200"));
    drop(server);
}

#[test]
fn many_scrapes_make_few_pages() {
    let page = Page::of(3);
    let (address, _server) = served(Limits::default(), page.clone());
    let started = Instant::now();
    for _ in 0..200 {
        assert_eq!(status(&ask(address, b"GET /metrics HTTP/1.1\r\n\r\n")), "200");
    }
    let most = started.elapsed().as_millis() as usize / FRESH.as_millis() as usize + 1;
    assert!((1..=most).contains(&page.1.load(Ordering::Relaxed)));
}

#[test]
fn a_server_that_stops_frees_its_port_whatever_its_clients_do() {
    let (address, server) = served(Limits::default(), Page::of(3));
    let mut open = connect(address);
    open.write_all(b"GET /met").unwrap();
    assert_eq!(status(&ask(address, b"GET /metrics HTTP/1.1\r\n\r\n")), "200");
    drop(server);
    drop(TcpListener::bind(address).unwrap());
    assert_eq!(open.read(&mut [0; 8]).unwrap_or(0), 0);
}

#[test]
fn an_address_that_becomes_free_is_taken_and_upkeep_goes_on() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, page) = (taken.local_addr().unwrap(), Page::of(3));
    let limits = Limits { upkeep: Duration::from_millis(10), ..Limits::default() };
    let _server = Server::start(address, None, limits, page.clone()).unwrap();
    assert!(eventually(|| page.2.load(Ordering::Relaxed) > 2));
    drop(taken);
    assert!(eventually(|| TcpStream::connect(address).is_ok()));
    assert_eq!(status(&ask(address, b"GET /metrics HTTP/1.1\r\n\r\n")), "200");
}

/// A page whose first making panics.
struct Fragile(AtomicUsize);

impl Pages for Fragile {
    fn metrics(&self) -> String {
        assert!(self.0.fetch_add(1, Ordering::Relaxed) > 0, "the first page");
        "whole".into()
    }

    fn run_upkeep(&self) {}
}

#[test]
fn after_a_panic_it_serves_again_and_it_can_be_stopped_in_the_pause() {
    let serve = || {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        (address, Server::start(address, Some(listener), Limits::default(), Fragile(AtomicUsize::new(0))).unwrap())
    };
    let request = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n";
    let (address, server) = serve();
    assert_eq!(ask(address, request), "", "the client of the panic gets nothing");
    assert!(ask(address, request).ends_with("whole"));
    drop(server);
    let (address, server) = serve();
    assert_eq!(ask(address, request), "");
    let began = Instant::now();
    drop(server);
    assert!(began.elapsed() < AFTER_PANIC, "a stop ends the pause");
}
