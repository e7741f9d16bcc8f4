//! As much of HTTP/1 as two pages need: the request's head read within bounds, the response's bytes.

/// The longest head of a request, in bytes.
pub const MAX_HEAD: usize = 8 << 10;

/// A page, or why there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// `GET /metrics`.
    Metrics,
    /// `GET /healthz`.
    Health,
    /// Another page.
    NotFound,
    /// Another method.
    NotAllowed,
    /// Not a request.
    Bad,
    /// The head did not come in time.
    Late,
    /// The head is too long.
    TooLong,
    /// Too many connections.
    Busy,
}

/// The answer to the bytes that came so far; `None` while the head is not complete.
pub fn answer(head: &[u8]) -> Option<Answer> {
    if !is_complete(head) {
        return (head.len() > MAX_HEAD).then_some(Answer::TooLong);
    }
    let line = head.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = str::from_utf8(line.strip_suffix(b"\r").unwrap_or(line)).unwrap_or_default();
    let [method, target, version] = line.split(' ').collect::<Vec<_>>()[..] else { return Some(Answer::Bad) };
    let is_word = !method.is_empty() && method.bytes().all(|byte| byte.is_ascii_uppercase());
    let path = target.split('?').next().unwrap_or_default();
    Some(match path {
        _ if !is_word || !matches!(version, "HTTP/1.0" | "HTTP/1.1") => Answer::Bad,
        "/metrics" | "/healthz" if method != "GET" => Answer::NotAllowed,
        "/metrics" => Answer::Metrics,
        "/healthz" => Answer::Health,
        _ => Answer::NotFound,
    })
}

fn is_complete(head: &[u8]) -> bool {
    let head = &head[..head.len().min(MAX_HEAD)];
    head.windows(4).any(|bytes| bytes == b"\r\n\r\n") || head.windows(2).any(|bytes| bytes == b"\n\n")
}

/// The bytes of a response; `metrics` makes the page of that name.
pub fn response(answer: Answer, metrics: &mut dyn FnMut() -> String) -> Vec<u8> {
    let (status, body) = match answer {
        Answer::Metrics => ("200 OK", metrics()),
        Answer::Health => ("200 OK", "ok\n".into()),
        Answer::NotFound => ("404 Not Found", "try /metrics or /healthz\n".into()),
        Answer::NotAllowed => ("405 Method Not Allowed\r\nAllow: GET", "only GET\n".into()),
        Answer::Bad => ("400 Bad Request", "not an HTTP/1 request\n".into()),
        Answer::Late => ("408 Request Timeout", "the request took too long\n".into()),
        Answer::TooLong => ("431 Request Header Fields Too Large", "the request is too long\n".into()),
        Answer::Busy => ("503 Service Unavailable\r\nRetry-After: 1", "too many connections\n".into()),
    };
    let kind = match answer {
        Answer::Metrics => "text/plain; version=0.0.4; charset=utf-8",
        _ => "text/plain; charset=utf-8",
    };
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    );
    head.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn answers_by_method_and_path() {
        let table: [(&str, Answer); 15] = [
            ("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", Answer::Metrics),
            ("GET /metrics?collect=all HTTP/1.0\n\n", Answer::Metrics),
            ("GET /healthz HTTP/1.1\r\n\r\n", Answer::Health),
            ("GET / HTTP/1.1\r\n\r\n", Answer::NotFound),
            ("GET /../metrics HTTP/1.1\r\n\r\n", Answer::NotFound),
            ("GET /metrics/ HTTP/1.1\r\n\r\n", Answer::NotFound),
            ("GET http://127.0.0.1/metrics HTTP/1.1\r\n\r\n", Answer::NotFound),
            ("POST /metrics HTTP/1.1\r\nContent-Length: 4\r\n\r\nbody", Answer::NotAllowed),
            ("HEAD /healthz HTTP/1.1\r\n\r\n", Answer::NotAllowed),
            ("get /metrics HTTP/1.1\r\n\r\n", Answer::Bad),
            ("GET  /metrics HTTP/1.1\r\n\r\n", Answer::Bad),
            ("GET /metrics HTTP/2\r\n\r\n", Answer::Bad),
            ("GET /metrics\r\n\r\n", Answer::Bad),
            ("\r\n\r\n", Answer::Bad),
            ("\u{16}\u{3}\u{1}\n\n", Answer::Bad),
        ];
        for (head, expected) in table {
            assert_eq!(answer(head.as_bytes()), Some(expected), "{head:?}");
        }
        assert_eq!(answer(b"GET /\xff\xfe HTTP/1.1\r\n\r\n"), Some(Answer::Bad));
        assert_eq!(answer(b"GET /metrics HTTP/1.1\r\n"), None);
        assert_eq!(answer(&[b'a'; MAX_HEAD]), None);
        assert_eq!(answer(&[b'a'; MAX_HEAD + 1]), Some(Answer::TooLong));
    }

    #[test]
    fn a_response_tells_its_length_and_type() {
        let text = String::from_utf8(response(Answer::Metrics, &mut || "x 1\n".into())).unwrap();
        assert_eq!(
            text,
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\nContent-Length: 4\r\n\
             Connection: close\r\n\r\nx 1\n"
        );
        let text = String::from_utf8(response(Answer::NotAllowed, &mut String::new)).unwrap();
        assert!(
            text.starts_with("HTTP/1.1 405 Method Not Allowed\r\nAllow: GET\r\nContent-Type: text/plain"),
            "{text}"
        );
    }

    proptest! {
        #[test]
        fn any_bytes_have_an_answer_or_wait(head in proptest::collection::vec(any::<u8>(), 0..200)) {
            let waits = answer(&head).is_none();
            prop_assert_eq!(waits, !is_complete(&head));
        }
    }
}
