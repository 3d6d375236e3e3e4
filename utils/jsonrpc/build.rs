//! Libraries with ouistiti's interface call functions of the program that loads them, which is to show them.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-link-arg-bins=-rdynamic");
}
