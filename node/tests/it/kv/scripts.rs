//! Runs the stories in `scripts/kv`. A story's commands:
//!
//! ```text
//! put KEY VALUE [prev_kv=] [ignore_value=] [ignore_lease=] [lease=N]
//! get KEY [END] [rev=N] [limit=N] [sort=TARGET] [order=ORDER] [keys_only=] [count_only=]
//!               [min_mod=N] [max_mod=N] [min_create=N] [max_create=N]
//! del KEY [END] [prev_kv=]
//! txn ... commit           in between, and nested by `then txn` or `else txn`:
//!   if TARGET KEY [END] OPERATOR OPERAND
//!   then put|get|del ...   else put|get|del ...
//! compact REVISION [physical=]
//! hash [REVISION]
//! malformed BYTES
//! restart
//! rows
//! ```

use std::{error::Error, fmt::Write as _};

use bytes::Bytes;
use goldenscript::{ArgumentConsumer, Command, Context, Runner};
use node::kv::{KvError, check_range, hash};
use proto::{
    etcdserverpb::{
        CompactionRequest, Compare, DeleteRangeRequest, PutRequest, RangeRequest, RangeResponse,
        RequestOp, ResponseHeader, TxnRequest, TxnResponse,
        compare::{CompareResult, CompareTarget, TargetUnion},
        range_request::{SortOrder, SortTarget},
        request_op::Request,
        response_op::Response,
    },
    mvccpb::KeyValue,
    quorate::v1::{KvRefusal, kv_command, kv_reply::Outcome},
};

use super::test_machine::{TestMachine, refused};

type Failure = Box<dyn Error>;

/// Makes each story a test of its own; a tidy test finds those that are not listed.
macro_rules! scripts {
    (kv: $($name:ident)*) => {$(
        #[test]
        fn $name() -> std::io::Result<()> {
            let path = concat!("tests/it/scripts/kv/", stringify!($name));
            goldenscript::run(&mut Story::new(), path)
        }
    )*};
}

scripts! { kv:
    compaction_drops_what_no_read_can_ask_for
    put_and_delete_count_revisions
    ranges_limit_sort_and_filter
    refusals_change_nothing
    rows_on_disk
    transactions_choose_a_branch
    transactions_see_their_own_changes
}

struct Story {
    machine: TestMachine,
    /// Transactions that are not committed, outermost first, and the branch they go into.
    open: Vec<(bool, TxnRequest)>,
}

impl Story {
    fn new() -> Self {
        Self { machine: TestMachine::new(), open: Vec::new() }
    }

    fn apply(&mut self, command: kv_command::Command) -> Result<String, Failure> {
        let mut out = String::new();
        match self.machine.apply(command) {
            Outcome::Put(it) => {
                writeln!(out, "{}", at(&it.header))?;
                show_all("was", &it.prev_kv.into_iter().collect::<Vec<_>>(), &mut out)?;
            }
            Outcome::DeleteRange(it) => {
                writeln!(out, "{} deleted {}", at(&it.header), it.deleted)?;
                show_all("was", &it.prev_kvs, &mut out)?;
            }
            Outcome::Txn(it) => show_txn(&it, 0, &mut out)?,
            Outcome::Compact(it) => writeln!(out, "{}", at(&it.header))?,
            Outcome::Refused(refusal) => show_refusal(&refusal, &mut out)?,
        }
        Ok(out)
    }

    fn operation(&mut self, request: Request) -> Result<String, Failure> {
        Ok(match request {
            Request::RequestPut(it) => self.apply(kv_command::Command::Put(it))?,
            Request::RequestDeleteRange(it) => self.apply(kv_command::Command::DeleteRange(it))?,
            Request::RequestTxn(it) => self.apply(kv_command::Command::Txn(it.into_inner()))?,
            Request::RequestRange(it) => {
                let mut out = String::new();
                match check_range(&it).map_err(refused).and_then(|()| self.machine.range(&it)) {
                    Ok(response) => show_range(&response, &mut out)?,
                    Err(refusal) => show_refusal(&refusal, &mut out)?,
                }
                out
            }
        })
    }

    fn add(&mut self, success: bool, request: Request) -> Result<(), Failure> {
        let (_, txn) = self.open.last_mut().ok_or("no open transaction")?;
        let branch = if success { &mut txn.success } else { &mut txn.failure };
        branch.push(RequestOp { request: Some(request) });
        Ok(())
    }

    fn commit(&mut self) -> Result<String, Failure> {
        let (success, txn) = self.open.pop().ok_or("no open transaction")?;
        if self.open.is_empty() {
            return self.operation(Request::RequestTxn(txn.into()));
        }
        self.add(success, Request::RequestTxn(txn.into()))?;
        Ok(String::new())
    }
}

impl Runner for Story {
    type Command = Command;

    fn run(&mut self, command: &Command, _context: &Context) -> Result<String, Failure> {
        let mut args = command.consume_args();
        let out = match command.name.as_str() {
            "txn" => {
                self.open.push((true, TxnRequest::default()));
                String::new()
            }
            "if" => {
                let compare = parse_compare(&mut args)?;
                self.open.last_mut().ok_or("no open transaction")?.1.compare.push(compare);
                String::new()
            }
            branch @ ("then" | "else") => {
                let success = branch == "then";
                match args.next_pos().ok_or("no operation")? {
                    "txn" => self.open.push((success, TxnRequest::default())),
                    name => {
                        let request = parse_operation(name, &mut args)?;
                        self.add(success, request)?;
                    }
                }
                String::new()
            }
            "commit" => self.commit()?,
            "compact" => self.apply(kv_command::Command::Compact(CompactionRequest {
                revision: args.next_pos().ok_or("no revision")?.parse()?,
                physical: args.take_key("physical").is_some(),
            }))?,
            "hash" => {
                let revision = args.next_pos().map_or(Ok(0), str::parse)?;
                match hash(&self.machine.rows, revision) {
                    Ok(it) => {
                        format!("{:08x} compacted {} rev {}\n", it.hash, it.compacted, it.revision)
                    }
                    Err(KvError::Refused(refusal)) => format!("{refusal}\n"),
                    Err(KvError::Storage(error)) => return Err(error.into()),
                }
            }
            "restart" => {
                self.machine.restart();
                String::new()
            }
            "malformed" => {
                let error = self.machine.stopped_by(args.next_pos().unwrap_or("").as_bytes());
                format!("{error}\n")
            }
            "rows" => {
                let mut out = String::new();
                for (key, value) in self.machine.all_rows() {
                    writeln!(out, "{} = {}", key.escape_ascii(), value.escape_ascii())?;
                }
                out
            }
            name => {
                let request = parse_operation(name, &mut args)?;
                self.operation(request)?
            }
        };
        args.reject_next()?;
        Ok(out)
    }
}

fn parse_operation(name: &str, args: &mut ArgumentConsumer<'_>) -> Result<Request, Failure> {
    let flag = |args: &mut ArgumentConsumer<'_>, key: &str| args.take_key(key).is_some();
    let key = text(args.next_pos().unwrap_or_default());
    Ok(match name {
        "put" => Request::RequestPut(PutRequest {
            key,
            value: text(args.next_pos().unwrap_or_default()),
            lease: number(args, "lease")?,
            prev_kv: flag(args, "prev_kv"),
            ignore_value: flag(args, "ignore_value"),
            ignore_lease: flag(args, "ignore_lease"),
        }),
        "del" => Request::RequestDeleteRange(DeleteRangeRequest {
            key,
            range_end: text(args.next_pos().unwrap_or_default()),
            prev_kv: flag(args, "prev_kv"),
        }),
        "get" => Request::RequestRange(RangeRequest {
            key,
            range_end: text(args.next_pos().unwrap_or_default()),
            revision: number(args, "rev")?,
            limit: number(args, "limit")?,
            sort_target: args.take_key("sort").map_or(Ok(0), sort_target)?,
            sort_order: args.take_key("order").map_or(Ok(0), sort_order)?,
            keys_only: flag(args, "keys_only"),
            count_only: flag(args, "count_only"),
            min_mod_revision: number(args, "min_mod")?,
            max_mod_revision: number(args, "max_mod")?,
            min_create_revision: number(args, "min_create")?,
            max_create_revision: number(args, "max_create")?,
            ..RangeRequest::default()
        }),
        name => return Err(format!("unknown command {name}").into()),
    })
}

fn parse_compare(args: &mut ArgumentConsumer<'_>) -> Result<Compare, Failure> {
    let target = args.next_pos().ok_or("no target")?.to_owned();
    let rest: Vec<&str> = std::iter::from_fn(|| args.next_pos()).collect();
    let (key, end, operator, operand) = match rest[..] {
        [key, operator, operand] => (key, "", operator, operand),
        [key, end, operator, operand] => (key, end, operator, operand),
        _ => return Err("if TARGET KEY [END] OPERATOR OPERAND".into()),
    };
    let (target, union) = match target.as_str() {
        "version" => (CompareTarget::Version, TargetUnion::Version(operand.parse()?)),
        "create" => (CompareTarget::Create, TargetUnion::CreateRevision(operand.parse()?)),
        "mod" => (CompareTarget::Mod, TargetUnion::ModRevision(operand.parse()?)),
        "lease" => (CompareTarget::Lease, TargetUnion::Lease(operand.parse()?)),
        "value" => (CompareTarget::Value, TargetUnion::Value(text(operand))),
        target => return Err(format!("unknown target {target}").into()),
    };
    let result = match operator {
        "is" => CompareResult::Equal,
        "not" => CompareResult::NotEqual,
        "above" => CompareResult::Greater,
        "below" => CompareResult::Less,
        operator => return Err(format!("unknown operator {operator}").into()),
    };
    Ok(Compare {
        result: result.into(),
        target: target.into(),
        key: text(key),
        range_end: text(end),
        target_union: Some(union),
    })
}

fn sort_target(name: &str) -> Result<i32, Failure> {
    let target = SortTarget::from_str_name(&name.to_uppercase());
    target.map(i32::from).or_else(|| name.parse().ok()).ok_or_else(|| "unknown target".into())
}

fn sort_order(name: &str) -> Result<i32, Failure> {
    let order = SortOrder::from_str_name(&name.to_uppercase());
    order.map(i32::from).or_else(|| name.parse().ok()).ok_or_else(|| "unknown order".into())
}

fn number(args: &mut ArgumentConsumer<'_>, key: &str) -> Result<i64, Failure> {
    Ok(args.take_key(key).map_or(Ok(0), str::parse)?)
}

fn text(argument: &str) -> Bytes {
    Bytes::copy_from_slice(argument.as_bytes())
}

fn at(header: &Option<ResponseHeader>) -> String {
    format!("rev {}", header.as_ref().map_or(0, |header| header.revision))
}

fn show_refusal(refusal: &KvRefusal, out: &mut String) -> std::fmt::Result {
    writeln!(out, "refused: {} ({:?})", refusal.message, tonic::Code::from(refusal.code))
}

fn show_all(label: &str, kvs: &[KeyValue], out: &mut String) -> std::fmt::Result {
    for kv in kvs {
        let (key, value) = (kv.key.escape_ascii(), kv.value.escape_ascii());
        let (create, modified, version) = (kv.create_revision, kv.mod_revision, kv.version);
        writeln!(out, "{label} {key}={value} create {create} mod {modified} version {version}")?;
    }
    Ok(())
}

fn show_range(response: &RangeResponse, out: &mut String) -> std::fmt::Result {
    let more = if response.more { " more" } else { "" };
    writeln!(out, "{} count {}{more}", at(&response.header), response.count)?;
    show_all("   ", &response.kvs, out)
}

fn show_txn(response: &TxnResponse, depth: usize, out: &mut String) -> std::fmt::Result {
    let indent = "  ".repeat(depth);
    let branch = if response.succeeded { "succeeded" } else { "failed" };
    let at = if depth == 0 { format!("{} ", at(&response.header)) } else { String::new() };
    writeln!(out, "{indent}{at}{branch}")?;
    for op in &response.responses {
        let mut text = String::new();
        match op.response.as_ref() {
            Some(Response::ResponsePut(it)) => {
                writeln!(text, "put {}", self::at(&it.header))?;
                show_all("was", &it.prev_kv.clone().into_iter().collect::<Vec<_>>(), &mut text)?;
            }
            Some(Response::ResponseDeleteRange(it)) => {
                writeln!(text, "del {} deleted {}", self::at(&it.header), it.deleted)?;
                show_all("was", &it.prev_kvs, &mut text)?;
            }
            Some(Response::ResponseRange(it)) => {
                write!(text, "get ")?;
                show_range(it, &mut text)?;
            }
            Some(Response::ResponseTxn(it)) => {
                show_txn(it, depth + 1, out)?;
                continue;
            }
            None => writeln!(text, "nothing")?,
        }
        for line in text.lines() {
            writeln!(out, "{indent}  {line}")?;
        }
    }
    Ok(())
}
