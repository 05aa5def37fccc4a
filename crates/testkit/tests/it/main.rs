//! What only the whole system can show, and the rules of the house.

mod house;
mod inside;
mod proxies;
