//! As much HTTP/1.1 over a unix socket as is needed here: a connection for one request, with JSON or events back, or one
//! for many small ones.

use std::io::{self, BufRead, BufReader, Read, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};

use crate::process::PATH;

/// How long the other side may say nothing at all.
const SILENCE: Duration = Duration::from_secs(60);

/// The daemon's HTTP interface.
pub(crate) struct Api {
    socket: PathBuf,
}

impl Api {
    pub(crate) fn new(socket: &Path) -> Self {
        Self { socket: socket.to_owned() }
    }

    /// Submits `count` jobs that run `argv`, in one request; their ids.
    pub(crate) fn submit(&self, count: usize, argv: &[&str]) -> Result<Vec<String>> {
        let spec = json!({
            "command": { "argv": argv },
            "cwd": "/",
            "context": { "environment": [["PATH", PATH]] },
        });
        let path = "/v1/jobs/batch";
        let reply: Value = serde_json::from_reader(self.post(path, 201, &Value::from(vec![spec; count]))?)
            .with_context(|| format!("POST {path}: the reply is not JSON"))?;
        let results = reply.as_array().with_context(|| format!("POST {path}: the reply is not an array"))?;
        ensure!(results.len() == count, "POST {path}: {} results for {count} jobs", results.len());
        let id = |result: &Value| match result["id"].as_str() {
            Some(id) => Ok(id.to_owned()),
            None => bail!("POST {path}: a job was refused: {result}"),
        };
        results.iter().map(id).collect()
    }

    /// Waits until all of these jobs have ended; their records in the order they ended.
    pub(crate) fn wait(&self, ids: &[String]) -> Result<Vec<Value>> {
        let path = "/v1/wait";
        let body = self.post(path, 200, &json!({ "jobs": ids, "any": false }))?;
        let records = read_ended(body).with_context(|| format!("POST {path}"))?;
        ensure!(
            records.len() == ids.len(),
            "POST {path}: {} of {} jobs ended before `done`",
            records.len(),
            ids.len()
        );
        Ok(records)
    }

    /// Gets JSON.
    pub(crate) fn get(&self, path: &str) -> Result<Value> {
        let body = self.ask("GET", path, 200, "")?;
        serde_json::from_reader(body).with_context(|| format!("GET {path}: the reply is not JSON"))
    }

    /// Gets what comes as it happens.
    pub(crate) fn stream(&self, path: &str) -> Result<Box<dyn BufRead>> {
        self.ask("GET", path, 200, "")
    }

    /// A connection for many requests.
    pub(crate) fn connect(&self) -> Result<Connection> {
        let cannot = || format!("cannot connect to {}", self.socket.display());
        let stream = UnixStream::connect(&self.socket).with_context(cannot)?;
        stream.set_read_timeout(Some(SILENCE)).with_context(cannot)?;
        Ok(Connection(BufReader::new(stream)))
    }

    /// Posts and checks the status; what is left to read is the body.
    fn post(&self, path: &str, expected: u16, body: &Value) -> Result<Box<dyn BufRead>> {
        self.ask("POST", path, expected, &body.to_string())
    }

    fn ask(&self, method: &str, path: &str, expected: u16, body: &str) -> Result<Box<dyn BufRead>> {
        let cannot = || format!("{method} {path} on {}", self.socket.display());
        let mut stream = UnixStream::connect(&self.socket).with_context(cannot)?;
        stream.set_read_timeout(Some(SILENCE)).with_context(cannot)?;
        let request = request(method, path, "close", body);
        // A refusal may come before the body is read: then the reply says why, not the failed write.
        let sent = stream.write_all(request.as_bytes());
        let (status, mut body) = match read_head(BufReader::new(stream)) {
            Ok(reply) => reply,
            Err(error) => return Err(sent.err().map_or(error, Into::into)).with_context(cannot),
        };
        if status != expected {
            let mut text = String::new();
            body.read_to_string(&mut text).with_context(cannot)?;
            bail!("{method} {path}: {status} instead of {expected}: {}", text.trim());
        }
        Ok(body)
    }
}

fn request(method: &str, path: &str, connection: &str, body: &str) -> String {
    format!(
        "{method} {path} HTTP/1.1\r\nHost: nodejobs\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\nConnection: {connection}\r\n\r\n{body}",
        body.len()
    )
}

/// A connection that stays for the next request.
pub(crate) struct Connection(BufReader<UnixStream>);

impl Connection {
    /// Posts, and reads the whole answer away. It has to have this status, and say how long it is.
    pub(crate) fn post(&mut self, path: &str, expected: u16, body: &str) -> Result<()> {
        let cannot = || format!("POST {path}");
        self.0
            .get_mut()
            .write_all(request("POST", path, "keep-alive", body).as_bytes())
            .with_context(cannot)?;
        let Head { status, length, .. } = Head::read(&mut self.0).with_context(cannot)?;
        let mut answer = vec![0; length.with_context(|| format!("POST {path}: no length"))?];
        self.0.read_exact(&mut answer).with_context(cannot)?;
        ensure!(
            status == expected,
            "POST {path}: {status} instead of {expected}: {}",
            String::from_utf8_lossy(&answer).trim()
        );
        Ok(())
    }
}

/// Reads status line and headers; the status and a reader of the body.
fn read_head(mut reader: impl BufRead + 'static) -> Result<(u16, Box<dyn BufRead>)> {
    let Head { status, length, chunked } = Head::read(&mut reader)?;
    let body: Box<dyn BufRead> = match length {
        _ if chunked => Box::new(BufReader::new(Chunks { inner: reader, left: 0, ended: false })),
        Some(length) => Box::new(reader.take(length as u64)),
        None => Box::new(reader),
    };
    Ok((status, body))
}

/// What comes before a body.
struct Head {
    status: u16,
    length: Option<usize>,
    chunked: bool,
}

impl Head {
    fn read(reader: &mut impl BufRead) -> Result<Self> {
        let first = read_line(reader)?;
        let status = first.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok());
        let status = status.with_context(|| format!("no status in `{first}`"))?;
        let (mut length, mut chunked) = (None, false);
        loop {
            let line = read_line(reader)?;
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(':').with_context(|| format!("no header in `{line}`"))?;
            match name.to_ascii_lowercase().as_str() {
                "content-length" => {
                    length = Some(value.trim().parse().context("no length in Content-Length")?);
                }
                "transfer-encoding" => chunked = value.trim().eq_ignore_ascii_case("chunked"),
                _ => {}
            }
        }
        Ok(Self { status, length, chunked })
    }
}

/// Reads server-sent events up to `done`; the records of the `ended` ones.
fn read_ended(body: impl BufRead) -> Result<Vec<Value>> {
    let (mut event, mut data, mut records) = (String::new(), String::new(), Vec::new());
    for line in body.lines() {
        let line = line.with_context(|| format!("the stream broke after {} jobs", records.len()))?;
        if let Some(name) = line.strip_prefix("event:") {
            name.trim().clone_into(&mut event);
        } else if let Some(text) = line.strip_prefix("data:") {
            data.push_str(text);
        } else if line.is_empty() {
            match event.as_str() {
                "ended" => records.push(serde_json::from_str(&data).context("a record is not JSON")?),
                "done" => return Ok(records),
                "" => {}
                other => bail!("unexpected event `{other}`: {data}"),
            }
            event.clear();
            data.clear();
        }
    }
    bail!("the stream ended without `done`, after {} jobs", records.len())
}

/// The body of a chunked reply.
struct Chunks<R> {
    inner: R,
    left: usize,
    ended: bool,
}

impl<R: BufRead> Read for Chunks<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.ended {
            return Ok(0);
        }
        if self.left == 0 {
            let line = read_line(&mut self.inner)?;
            let digits = line.split(';').next().unwrap_or_default().trim();
            self.left = usize::from_str_radix(digits, 16)
                .map_err(|_| io::Error::other(format!("no chunk size in `{line}`")))?;
            if self.left == 0 {
                self.ended = true;
                while !read_line(&mut self.inner)?.is_empty() {}
                return Ok(0);
            }
        }
        let most = buffer.len().min(self.left);
        let count = self.inner.read(&mut buffer[..most])?;
        if count == 0 && most > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.left -= count;
        if self.left == 0 {
            read_line(&mut self.inner)?;
        }
        Ok(count)
    }
}

/// One line without its end. The end of the stream is an error: no line we read is the last thing said.
fn read_line(reader: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;
    use std::thread;

    use super::*;

    /// Answers one request with `reply`; the request's body.
    fn served<T>(reply: &str, ask: impl FnOnce(&Api) -> T) -> (T, Value) {
        let name = format!("xtask-http-{}-{:?}", std::process::id(), thread::current().id());
        let socket = std::env::temp_dir().join(name);
        let _ = std::fs::remove_file(&socket);
        let listener = UnixListener::bind(&socket).unwrap();
        let answer = thread::scope(|scope| {
            let server = scope.spawn(|| {
                let (stream, _) = listener.accept().unwrap();
                let mut reader = BufReader::new(stream);
                let mut length = 0;
                loop {
                    let line = read_line(&mut reader).unwrap();
                    if let Some(value) = line.strip_prefix("Content-Length: ") {
                        length = value.parse().unwrap();
                    } else if line.is_empty() {
                        break;
                    }
                }
                let mut body = vec![0; length];
                reader.read_exact(&mut body).unwrap();
                reader.get_mut().write_all(reply.as_bytes()).unwrap();
                serde_json::from_slice(&body).unwrap()
            });
            (ask(&Api::new(&socket)), server.join().unwrap())
        });
        std::fs::remove_file(&socket).unwrap();
        answer
    }

    #[test]
    fn a_batch_is_submitted() {
        let reply = "HTTP/1.1 201 Created\r\ncontent-length: 23\r\n\r\n[{\"id\":\"a\"},{\"id\":\"b\"}]tail";
        let (ids, body) = served(reply, |api| api.submit(2, &["true"]));
        assert_eq!(ids.unwrap(), ["a", "b"]);
        assert_eq!(body.as_array().unwrap().len(), 2);
        assert_eq!(body[1]["command"]["argv"], json!(["true"]));
        assert_eq!(body[1]["context"]["environment"], json!([["PATH", "/usr/bin:/bin"]]));
    }

    #[test]
    fn a_connection_that_stays_reads_each_answer_to_its_end() {
        let reply = "HTTP/1.1 201 Created\r\nContent-Length: 4\r\n\r\nbodyHTTP/1.1 400 Bad\r\nContent-Length: 3\r\n\r\nwhy";
        let (second, body) = served(reply, |api| {
            let mut connection = api.connect().unwrap();
            connection.post("/a", 201, "{\"n\":1}").unwrap();
            let Head { status, length, .. } = Head::read(&mut connection.0).unwrap();
            (status, length)
        });
        assert_eq!((second, body), ((400, Some(3)), json!({ "n": 1 })));
    }

    #[test]
    fn a_refusal_is_shown() {
        let reply = "HTTP/1.1 400 Bad Request\r\nContent-Length: 12\r\n\r\nno such word";
        let (ids, _) = served(reply, |api| api.submit(1, &["true"]));
        assert_eq!(ids.unwrap_err().to_string(), "POST /v1/jobs/batch: 400 instead of 201: no such word");

        let reply = "HTTP/1.1 201 Created\r\nContent-Length: 27\r\n\r\n[{\"error\":{\"kind\":\"full\"}}]";
        let (ids, _) = served(reply, |api| api.submit(1, &["true"]));
        assert!(ids.unwrap_err().to_string().contains(r#"refused: {"error":{"kind":"full"}}"#));
    }

    #[test]
    fn ended_jobs_are_read_from_a_chunked_stream() {
        // The chunk borders fall anywhere, in the middle of a line too.
        let reply = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
            10\r\nevent: ended\ndat\r\n\
            15;x=1\r\na: {\"self_id\":\"a\"}\n\n: \r\n\
            a\r\nalive\n\neve\r\n\
            11\r\nnt: done\ndata:\n\n\n\r\n\
            0\r\n\r\n";
        let (records, body) = served(reply, |api| api.wait(&["a".to_owned()]));
        assert_eq!(records.unwrap(), [json!({ "self_id": "a" })]);
        assert_eq!(body, json!({ "jobs": ["a"], "any": false }));
    }

    #[test]
    fn a_stream_that_breaks_off_is_an_error() {
        for reply in [
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "HTTP/1.1 200 OK\r\n\r\nevent: done\ndata: {}\n\n",
            "HTTP/1.1 200 OK\r\n",
            "",
        ] {
            let (records, _) = served(reply, |api| api.wait(&["a".to_owned()]));
            assert!(records.is_err(), "{reply}");
        }
    }
}
