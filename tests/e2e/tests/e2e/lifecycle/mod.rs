/// A clock that is wrong.
mod clock;
/// What the commands print and exit with.
mod commands;
/// What a neighbour in the edge's network finds.
mod exposure;
/// From a token to a node, and what comes in between.
mod join;
/// A gateway that is stopped, killed, or out of something.
mod outage;
/// Who owns a node, and who does not any more.
mod ownership;
/// What keeps a program from starting.
mod startup;
