use bytes::BytesMut;
use loona_hpack::{Decoder, Encoder};

use super::{
    CONTINUATION, END_HEADERS, END_STREAM, Filter, FrameHeader, HEADERS, Malformed, PADDED,
    PREFACE, PRIORITY,
};

const DATA: u8 = 0x0;
const SETTINGS: u8 = 0x4;

#[test]
fn a_well_formed_authority_opens_the_connection_and_changes_no_byte() {
    let sent = [
        PREFACE.to_vec(),
        frame(SETTINGS, 0, 0, &[]),
        request(&mut Encoder::new(), 1, "127.0.0.1:2379"),
        frame(DATA, END_STREAM, 1, b"hello"),
    ]
    .concat();
    for step in [1, 7, sent.len()] {
        let mut filter = Filter::new();
        assert_eq!(pass(&mut filter, &sent, step), Ok(sent.clone()), "{step} bytes at a time");
        assert!(filter.is_open());
    }
}

#[test]
fn a_malformed_authority_is_replaced_in_every_request_of_the_connection() {
    for authority in ["http://127.0.0.1:2379", "endpoint://client-1/127.0.0.1:2379", "a b", ""] {
        let mut encoder = Encoder::new();
        let sent = [
            PREFACE.to_vec(),
            request(&mut encoder, 1, authority),
            frame(DATA, END_STREAM, 1, b"hello"),
            // By now the encoder refers to its table.
            request(&mut encoder, 3, authority),
        ]
        .concat();
        for step in [1, 13, sent.len()] {
            let mut filter = Filter::new();
            let passed = pass(&mut filter, &sent, step).unwrap();
            let requests = requests(&passed);
            assert_eq!(requests.len(), 2, "{authority}");
            for headers in requests {
                assert_eq!(headers[0], (":authority".to_owned(), "localhost".to_owned()));
                assert_eq!(headers[1], (":path".to_owned(), "/etcdserverpb.KV/Range".to_owned()));
            }
            assert!(passed.windows(5).any(|it| it == b"hello"), "data is left as it is");
        }
    }
}

#[test]
fn padding_priority_and_continuations_are_understood() {
    let block = encode(&mut Encoder::new(), "http://x");
    let (first, second) = block.split_at(5);
    let padded = [&[3], [0; 5].as_slice(), first, &[0; 3]].concat();
    let sent = [
        PREFACE.to_vec(),
        frame(HEADERS, PADDED | PRIORITY | END_STREAM, 1, &padded),
        frame(CONTINUATION, END_HEADERS, 1, second),
    ]
    .concat();
    let passed = pass(&mut Filter::new(), &sent, 4).unwrap();
    assert_eq!(requests(&passed)[0][0].1, "localhost");
    let header = FrameHeader::read(&passed[PREFACE.len()..]).unwrap();
    assert_eq!((header.kind, header.flags), (HEADERS, END_HEADERS | END_STREAM));
}

#[test]
fn long_headers_are_cut_into_frames() {
    let mut headers = vec![(b":authority".to_vec(), b"http://x".to_vec())];
    headers.extend((0..40).map(|_| (b"x-long".to_vec(), vec![b'v'; 1000])));
    let block = Encoder::new().encode(headers.iter().map(|(name, value)| (&name[..], &value[..])));
    let sent = [PREFACE.to_vec(), frame(HEADERS, END_HEADERS, 1, &block)].concat();
    let passed = pass(&mut Filter::new(), &sent, sent.len()).unwrap();
    let read = &requests(&passed)[0];
    assert_eq!(read.len(), 41);
    assert!(read.iter().skip(1).all(|(_, value)| value.len() == 1000));
}

#[test]
fn other_protocols_pass() {
    for sent in [&b"GET /health HTTP/1.1\r\n\r\n"[..], b"\x16\x03\x01", b"PRI * HTTP/1.1\r\n\r\n"] {
        let mut filter = Filter::new();
        assert_eq!(pass(&mut filter, sent, 3), Ok(sent.to_vec()));
        assert!(filter.is_open());
    }
}

/// What a stranger sends never ends the process, and what is not understood is HTTP/2's to refuse.
#[test]
fn random_bytes_pass_or_are_refused() {
    let mut random = 1_u64;
    let mut next = move || {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963);
        (random >> 33) as u8
    };
    for round in 0..20_000 {
        let mut encoder = Encoder::new();
        let authority = if round % 2 == 0 { "http://x" } else { "x" };
        let mut sent = [PREFACE.to_vec(), request(&mut encoder, 1, authority)].concat();
        sent.extend(request(&mut encoder, 3, authority));
        for _ in 0..=round % 4 {
            let at = usize::from(next()) % sent.len();
            sent[at] = next();
        }
        if round % 3 == 0 {
            sent.extend((0..64).map(|_| next()));
        }
        let _ = pass(&mut Filter::new(), &sent, 1 + usize::from(next()) % 40);
    }
}

fn pass(filter: &mut Filter, sent: &[u8], step: usize) -> Result<Vec<u8>, Malformed> {
    let mut out = BytesMut::new();
    for bytes in sent.chunks(step) {
        filter.take(bytes, &mut out)?;
    }
    Ok(out.to_vec())
}

fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = BytesMut::new();
    FrameHeader { length: payload.len(), kind, flags, stream: [0, 0, 0, stream] }.write(&mut out);
    out.extend_from_slice(payload);
    out.to_vec()
}

fn request(encoder: &mut Encoder<'_>, stream: u8, authority: &str) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, &encode(encoder, authority))
}

fn encode(encoder: &mut Encoder<'_>, authority: &str) -> Vec<u8> {
    let headers: [(&[u8], &[u8]); 2] =
        [(b":authority", authority.as_bytes()), (b":path", b"/etcdserverpb.KV/Range")];
    encoder.encode(headers)
}

/// The headers of each request in what has passed, as the server's decoder reads them.
fn requests(passed: &[u8]) -> Vec<Vec<(String, String)>> {
    let mut decoder = Decoder::new();
    let mut rest = &passed[PREFACE.len()..];
    let mut requests = Vec::new();
    let mut block = Vec::new();
    while let Some(header) = FrameHeader::read(rest) {
        let payload = &rest[9..9 + header.length];
        if header.kind == HEADERS || header.kind == CONTINUATION {
            block.extend_from_slice(payload);
            if header.flags & END_HEADERS != 0 {
                let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
                let headers = decoder.decode(&block).unwrap();
                requests.push(headers.into_iter().map(|(n, v)| (text(n), text(v))).collect());
                block.clear();
            }
        }
        rest = &rest[9 + header.length..];
    }
    requests
}
