//! One PUT of the metrics to a Pushgateway, over plain HTTP with bounded time.

use crate::error::reason;
use std::io::{Error, ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

/// The most of a response that is read, in bytes.
const MAX_RESPONSE: usize = 4 << 10;

/// Replaces all that the Pushgateway at `HOST:PORT` holds of the run by this text. Names are looked up by the system, in
/// its own time; all else ends within `limit`.
///
/// # Errors
///
/// Why it did not take place, in words.
pub fn push(gateway: &str, run: &str, text: &str, limit: Duration) -> Result<(), String> {
    let end = Instant::now() + limit;
    let response = put(gateway, run, text, end).map_err(|error| match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => format!("no answer within {} s", limit.as_secs()),
        _ => reason(&error),
    })?;
    let response = String::from_utf8_lossy(&response);
    let mut words = response.split_ascii_whitespace();
    match (words.next().is_some_and(|version| version.starts_with("HTTP/1.")), words.next()) {
        (true, Some("200" | "202")) => Ok(()),
        (true, Some(status)) => {
            let body = response.split_once("\r\n\r\n").map_or("", |(_, body)| body.trim());
            Err(format!("HTTP status {status}: {}", body.lines().next().unwrap_or_default()))
        }
        _ => Err("what answers there speaks no HTTP/1".into()),
    }
}

fn put(gateway: &str, run: &str, text: &str, end: Instant) -> std::io::Result<Vec<u8>> {
    let mut stream = connect(gateway, end)?;
    let head = format!(
        "PUT /metrics/job/gauntlet/run/{} HTTP/1.1\r\nHost: {gateway}\r\nContent-Type: text/plain; version=0.0.4; \
         charset=utf-8\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        escaped(run),
        text.len()
    );
    let mut request = [head.as_bytes(), text.as_bytes()].concat();
    while !request.is_empty() {
        stream.set_write_timeout(Some(left(end)?))?;
        match stream.write(&request)? {
            0 => return Err(ErrorKind::WriteZero.into()),
            count => request.drain(..count),
        };
    }
    answer(&mut stream, end)
}

fn connect(gateway: &str, end: Instant) -> std::io::Result<TcpStream> {
    let mut failed = Error::new(ErrorKind::NotFound, "no such host");
    for address in gateway.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, left(end)?) {
            Ok(stream) => return Ok(stream),
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

/// The beginning of what is answered.
fn answer(stream: &mut TcpStream, end: Instant) -> std::io::Result<Vec<u8>> {
    let (mut response, mut buffer) = (vec![], [0; 1024]);
    while response.len() < MAX_RESPONSE {
        stream.set_read_timeout(Some(left(end)?))?;
        match stream.read(&mut buffer)? {
            0 => break,
            count => response.extend_from_slice(&buffer[..count]),
        }
    }
    Ok(response)
}

fn left(end: Instant) -> std::io::Result<Duration> {
    let left = end.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(ErrorKind::TimedOut.into()) } else { Ok(left) }
}

/// A run's name as a part of a path, with everything but plain characters as `%XX`. An empty one is `-`, since the
/// gateway knows no empty part.
fn escaped(run: &str) -> String {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(byte);
    let part = |byte: u8| if plain(&byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    if run.is_empty() { "-".into() } else { run.bytes().map(part).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    /// What a push says to a gateway that answers `response`, and the request that it got.
    fn pushed(response: Option<&'static str>, text: &str, limit: Duration) -> (Result<(), String>, String) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let gateway = listener.local_addr().unwrap().to_string();
        let length = text.len();
        let served = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let Some(response) = response else {
                std::thread::sleep(3 * limit);
                return String::new();
            };
            let (mut request, mut buffer) = (vec![], [0; 4096]);
            let is_whole = |request: &[u8]| {
                String::from_utf8_lossy(request).split_once("\r\n\r\n").is_some_and(|(_, body)| body.len() == length)
            };
            while !is_whole(&request) {
                let count = stream.read(&mut buffer).unwrap();
                request.extend_from_slice(&buffer[..count]);
            }
            stream.write_all(response.as_bytes()).unwrap();
            String::from_utf8(request).unwrap()
        });
        let said = push(&gateway, "a b/ä", text, limit);
        (said, served.join().unwrap())
    }

    #[test]
    fn one_request_holds_all_and_its_answer_is_told() {
        let text = "gauntlet_x 1\n".repeat(20_000);
        let limit = Duration::from_secs(5);
        let (said, request) = pushed(Some("HTTP/1.1 200 OK\r\n\r\n"), &text, limit);
        assert_eq!(said, Ok(()));
        assert!(request.starts_with("PUT /metrics/job/gauntlet/run/a%20b%2F%C3%A4 HTTP/1.1\r\nHost: 127.0.0.1:"));
        assert!(request.ends_with(&text) && request.contains(&format!("Content-Length: {}\r\n", text.len())));
        let refusal = "HTTP/1.1 400 Bad Request\r\n\r\ntext format parsing error\nmore";
        assert_eq!(pushed(Some(refusal), "x", limit).0, Err("HTTP status 400: text format parsing error".into()));
        let strange = pushed(Some("SSH-2.0-OpenSSH_9.2\r\n"), "x", limit).0;
        assert_eq!(strange, Err("what answers there speaks no HTTP/1".into()));
    }

    #[test]
    fn nobody_and_silence_end_in_words() {
        let (said, _) = pushed(None, "x", Duration::from_millis(200));
        assert_eq!(said, Err("no answer within 0 s".into()));
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        assert_eq!(push(&port.to_string(), "x", "x", Duration::from_secs(1)), Err("connection refused".into()));
        assert_eq!(escaped(""), "-");
    }
}
