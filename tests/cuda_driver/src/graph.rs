//! Graphs and their launches.

use crate::access::{Access, Author};
use crate::clock::VectorClock;
use crate::code::{Code, Outcome};
use crate::driver::Driver;
use crate::work::{Action, Ticket};
use std::collections::BTreeSet;

/// A node of a graph: a captured operation.
#[derive(Clone)]
pub(crate) struct Node {
    pub(crate) action: Action,
    pub(crate) author: Author,
    /// Indices of the nodes on which it depends, all of them earlier in the graph.
    pub(crate) dependencies: BTreeSet<usize>,
}

/// An executable graph, `CUgraphExec`.
pub(crate) struct Exec {
    /// Context of the stream on which it was captured.
    pub(crate) context: u64,
    nodes: Vec<Node>,
    /// The end of the last launch, and the clock after it.
    last: Option<Ticket>,
    clock: VectorClock,
}

impl Driver {
    fn graph(&mut self, handle: u64) -> Outcome<&(u64, Vec<Node>)> {
        if !self.graphs.contains_key(&handle) {
            // Manual, `cuGraphLaunch` and others: an invalid graph returns an invalid value.
            self.no_such("graph", handle);
            return Err(Code::INVALID_VALUE);
        }
        Ok(&self.graphs[&handle])
    }

    fn exec(&mut self, handle: u64) -> Outcome<&mut Exec> {
        if !self.execs.contains_key(&handle) {
            self.no_such("executable graph", handle);
            return Err(Code::INVALID_VALUE);
        }
        Ok(self.execs.get_mut(&handle).expect("checked above"))
    }

    pub(crate) fn count_nodes(&mut self, graph: u64) -> Outcome<usize> {
        Ok(self.graph(graph)?.1.len())
    }

    pub(crate) fn destroy_graph(&mut self, graph: u64) -> Outcome {
        self.graph(graph)?;
        self.graphs.remove(&graph);
        self.destroy(graph);
        Ok(())
    }

    /// Manual, `cuGraphExecDestroy`: an executable graph in flight is freed when it completes.
    pub(crate) fn destroy_exec(&mut self, exec: u64) -> Outcome {
        self.exec(exec)?;
        self.execs.remove(&exec);
        self.destroy(exec);
        Ok(())
    }

    /// `cuGraphInstantiateWithFlags`; checks that nodes without a dependency between them do not access
    /// common bytes. CUDA Programming Guide, "CUDA Graphs": a node can run once its dependencies are
    /// complete, in any order relative to other nodes.
    pub(crate) fn instantiate(&mut self, graph: u64, flags: u64) -> Outcome<u64> {
        if flags != 0 {
            self.violation("the fake driver supports no flags for graph instantiation".into());
            return Err(Code::NOT_SUPPORTED);
        }
        let (context, nodes) = self.graph(graph)?.clone();
        for (this, other) in unordered_pairs(&nodes) {
            let (this, other) = (&nodes[this], &nodes[other]);
            if Access::any_conflict(&this.action.accesses(), &other.action.accesses()) {
                let (this, other) = (this.author, other.author);
                self.violation(format!("unordered within a graph: {this} and {other}"));
            }
        }
        let handle = self.new_handle();
        let clock = VectorClock::default();
        self.execs.insert(handle, Exec { context, nodes, last: None, clock });
        Ok(handle)
    }

    /// Manual, `cuGraphUpload`: ordered after the work of the stream and the launches of the graph.
    pub(crate) fn upload(&mut self, exec: u64, stream: u64) -> Outcome {
        self.order_after_launches(exec, stream)?;
        let author = self.author(stream);
        let ticket = self.enqueue_next(stream, Action::Nothing, author);
        self.exec(exec)?.last = Some(ticket);
        Ok(())
    }

    /// Manual, `cuGraphLaunch`: ordered after previous work of the stream and previous launches of the
    /// executable graph.
    pub(crate) fn launch(&mut self, exec: u64, stream: u64) -> Outcome {
        self.order_after_launches(exec, stream)?;
        let nodes = self.exec(exec)?.nodes.clone();
        for node in &nodes {
            if let Action::RecordNode { event } = node.action
                && !self.events.contains_key(&event)
            {
                let author = node.author;
                self.violation(format!("event {event:#x} of node {author} was destroyed before"));
            }
        }
        let last = if is_chain(&nodes) {
            let launched = nodes.iter().map(|node| {
                let author = self.launched(node, stream);
                self.enqueue_next(stream, node.action.clone(), author)
            });
            launched.last()
        } else {
            self.launch_branches(&nodes, stream)
        };
        let clock = self.stream(stream)?.clock.clone();
        let exec = self.exec(exec)?;
        exec.last = last.or(exec.last);
        exec.clock = clock;
        Ok(())
    }

    fn order_after_launches(&mut self, exec: u64, stream: u64) -> Outcome {
        self.current_context()?;
        if self.stream(stream)?.capture.is_some() {
            self.violation("the fake driver has no child graphs".into());
            return Err(Code::NOT_SUPPORTED);
        }
        let launched = self.exec(exec)?;
        let (last, clock) = (launched.last, launched.clock.clone());
        let stream = self.stream(stream)?;
        stream.waits.extend(last);
        stream.clock.join(&clock);
        Ok(())
    }

    fn launched(&self, node: &Node, stream: u64) -> Author {
        Author { function: node.author.function, ..self.author(stream) }
    }

    /// Enqueues the nodes of a graph with branches. Each node is a separate timeline, and all are joined
    /// at the end. The nodes run in the order of the list, which is one of the permitted orders.
    fn launch_branches(&mut self, nodes: &[Node], stream: u64) -> Option<Ticket> {
        let before = self.streams.get_mut(&stream).expect("found before");
        let (mut base, mut waits) = (before.clock.clone(), std::mem::take(&mut before.waits));
        base.join(&self.host);
        let mut end = base.clone();
        let (mut clocks, mut last) = (Vec::<VectorClock>::new(), None);
        for node in nodes {
            let mut clock = base.clone();
            node.dependencies.iter().for_each(|&before| clock.join(&clocks[before]));
            let (author, timeline) = (self.launched(node, stream), self.new_handle());
            let (action, waits) = (node.action.clone(), std::mem::take(&mut waits));
            last = Some(self.enqueue((stream, timeline), action, author, waits, &mut clock));
            end.join(&clock);
            clocks.push(clock);
        }
        self.streams.get_mut(&stream).expect("found before").clock = end;
        last
    }
}

/// True if every node depends on the previous one, so that the graph has the order of a stream.
fn is_chain(nodes: &[Node]) -> bool {
    nodes.iter().enumerate().all(|(at, node)| at == 0 || node.dependencies.contains(&(at - 1)))
}

fn unordered_pairs(nodes: &[Node]) -> Vec<(usize, usize)> {
    let mut ancestors: Vec<BTreeSet<usize>> = Vec::new();
    let mut pairs = Vec::new();
    for (at, node) in nodes.iter().enumerate() {
        let mut own = node.dependencies.clone();
        node.dependencies.iter().for_each(|&before| own.extend(&ancestors[before]));
        pairs.extend((0..at).filter(|earlier| !own.contains(earlier)).map(|earlier| (at, earlier)));
        ancestors.push(own);
    }
    pairs
}
