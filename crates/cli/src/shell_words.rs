//! Words of a command line as the text of a shell script.

/// The script that runs exactly these words. A single word is a script already: `-- 'cd /tmp && ls'`.
pub fn script(words: &[String]) -> String {
    match words {
        [script] => script.clone(),
        words => words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" "),
    }
}

/// One word, as a shell reads it.
pub fn quoted(word: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:=@%+,".contains(&byte);
    if !word.is_empty() && word.bytes().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn one_word_is_a_script_and_several_are_words() {
        assert_eq!(script(&["ls | wc".to_owned()]), "ls | wc");
        assert_eq!(script(&["echo".to_owned(), "a b".to_owned(), "it's".to_owned()]), r"echo 'a b' 'it'\''s'");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn a_shell_reads_the_same_words(words in proptest::collection::vec("[ -~\n]{0,12}", 1..4)) {
            let mut all = vec!["printf".to_owned(), "%s\\0".to_owned()];
            all.extend(words.iter().cloned());
            let output = Command::new("/bin/sh").arg("-c").arg(script(&all)).output().expect("a shell");
            let expected: String = words.iter().map(|word| format!("{word}\0")).collect();
            prop_assert_eq!(String::from_utf8(output.stdout).expect("text"), expected);
        }
    }
}
