use super::{request_op::Request, *};
use crate::etcdserverpb::{Compare, compare::CompareTarget};

fn put() -> TxnRequest {
    let put = PutRequest { key: "a".into(), value: "1".into(), ..PutRequest::default() };
    TxnRequest { success: vec![op(Request::RequestPut(put))], ..TxnRequest::default() }
}

fn op(request: Request) -> RequestOp {
    RequestOp { request: Some(request) }
}

fn within(txn: TxnRequest) -> TxnRequest {
    let compare = Compare { target: CompareTarget::Version.into(), ..Compare::default() };
    let nested = op(Request::RequestTxn(txn.into()));
    TxnRequest { compare: vec![compare], success: vec![nested], failure: Vec::new() }
}

fn deep(levels: usize) -> TxnRequest {
    (0..levels).fold(put(), |txn, _| within(txn))
}

#[test]
fn what_is_written_is_what_is_read() {
    for levels in [0, 1, 48, 49, 100, 130] {
        let txn = deep(levels);
        assert_eq!(TxnRequest::decode(txn.encode_to_vec().as_slice()), Ok(txn), "{levels}");
    }
}

#[test]
fn what_nests_too_deep_is_refused_and_does_not_exhaust_the_stack() {
    for levels in [200, 1_000] {
        let bytes = deep(levels).encode_to_vec();
        let refused = TxnRequest::decode(bytes.as_slice()).unwrap_err();
        assert!(refused.to_string().ends_with("recursion limit reached"), "{levels}: {refused}");
        // The count is back where it was.
        assert!(TxnRequest::decode(deep(100).encode_to_vec().as_slice()).is_ok());
    }
    // As many levels as a request has bytes for.
    let bytes = (0..4_000)
        .fold(Vec::new(), |inner, _| length_delimited(0x12, &length_delimited(0x22, &inner)));
    assert!(TxnRequest::decode(bytes.as_slice()).is_err());
}

fn length_delimited(key: u8, bytes: &[u8]) -> Vec<u8> {
    let mut outer = vec![key];
    prost::encoding::encode_varint(bytes.len() as u64, &mut outer);
    outer.extend(bytes);
    outer
}
