//! The end of the log, and what comes after it. Read from the files alone.

use std::{
    collections::VecDeque,
    fs::File,
    io::{self, BufRead, BufReader},
    path::{Path, PathBuf},
};

use super::files::{self, LogFile};

/// Somebody who reads the log as it grows, across its files.
#[derive(Debug)]
pub struct Tail {
    dir: PathBuf,
    reading: Option<Reading>,
}

#[derive(Debug)]
struct Reading {
    first: u64,
    reader: BufReader<File>,
    /// What was read of a line that is not whole yet.
    part: Vec<u8>,
}

impl Tail {
    /// Stands `count` records before the end of the log in this directory, and returns those.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn open(dir: &Path, count: usize) -> io::Result<(Self, Vec<String>)> {
        let mut files = files::list(dir)?;
        let mut tail = Self {
            dir: dir.to_owned(),
            reading: None,
        };
        let Some(newest) = files.pop() else {
            return Ok((tail, Vec::new()));
        };
        let mut reading = Reading::open(&newest)?;
        let mut lines = last(&mut reading, count)?;
        tail.reading = Some(reading);
        while let Some(older) = files.pop().filter(|_| lines.len() < count) {
            let missing = count - lines.len();
            let mut before = match Reading::open(&older) {
                // Rotated out meanwhile, as is everything before it.
                Err(error) if error.kind() == io::ErrorKind::NotFound => break,
                opened => last(&mut opened?, missing)?,
            };
            before.append(&mut lines);
            lines = before;
        }
        Ok((tail, lines.into()))
    }

    /// The records that have come since.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn more(&mut self) -> io::Result<Vec<String>> {
        let mut lines = Vec::new();
        // The list comes first: what is in it was begun when the one before was complete.
        let files = files::list(&self.dir)?;
        let after = self.reading.as_ref().map_or(0, |reading| reading.first);
        if let Some(reading) = &mut self.reading {
            reading.lines(|line| lines.push(line))?;
        }
        for file in files.iter().filter(|file| file.first > after) {
            let mut reading = match Reading::open(file) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                opened => opened?,
            };
            reading.lines(|line| lines.push(line))?;
            self.reading = Some(reading);
        }
        Ok(lines)
    }
}

fn last(reading: &mut Reading, count: usize) -> io::Result<VecDeque<String>> {
    let mut lines = VecDeque::new();
    reading.lines(|line| {
        if lines.len() == count {
            lines.pop_front();
        }
        if count > 0 {
            lines.push_back(line);
        }
    })?;
    Ok(lines)
}

impl Reading {
    fn open(file: &LogFile) -> io::Result<Self> {
        Ok(Self {
            first: file.first,
            reader: BufReader::new(File::open(&file.path)?),
            part: Vec::new(),
        })
    }

    /// Every line that is whole by now.
    fn lines(&mut self, mut each: impl FnMut(String)) -> io::Result<()> {
        while self.reader.read_until(b'\n', &mut self.part)? > 0 {
            if self.part.pop_if(|last| *last == b'\n').is_none() {
                break;
            }
            each(String::from_utf8_lossy(&self.part).into_owned());
            self.part.clear();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Write};

    use super::*;

    #[test]
    fn the_last_records_come_from_as_many_files_as_it_takes() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), 1, "a\nb\nc\n");
        write(dir.path(), 4, "d\ne\n");
        write(dir.path(), 6, "");
        for (count, expected) in [(0, ""), (1, "e"), (3, "cde"), (9, "abcde")] {
            assert_eq!(Tail::open(dir.path(), count).unwrap().1.concat(), expected);
        }
    }

    #[test]
    fn a_follower_crosses_files_and_waits_for_whole_lines() {
        let dir = tempfile::tempdir().unwrap();
        let (mut tail, none) = Tail::open(dir.path(), 10).unwrap();
        assert!(none.is_empty() && tail.more().unwrap().is_empty());
        write(dir.path(), 1, "a\nb");
        assert_eq!(tail.more().unwrap(), ["a"]);
        write(dir.path(), 1, "b\nc\n");
        write(dir.path(), 4, "d\n");
        write(dir.path(), 5, "e\n");
        assert_eq!(tail.more().unwrap(), ["bb", "c", "d", "e"]);
        assert!(tail.more().unwrap().is_empty());
        write(dir.path(), 5, "f\n");
        assert_eq!(tail.more().unwrap(), ["f"]);
    }

    #[test]
    fn a_follower_finishes_the_file_that_was_rotated_out() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), 1, "a\n");
        let (mut tail, _) = Tail::open(dir.path(), 0).unwrap();
        write(dir.path(), 1, "b\n");
        fs::remove_file(LogFile::in_dir(dir.path(), 1).path).unwrap();
        write(dir.path(), 3, "c\n");
        assert_eq!(tail.more().unwrap(), ["b", "c"]);
    }

    fn write(dir: &Path, first: u64, text: &str) {
        let path = LogFile::in_dir(dir, first).path;
        let mut file = fs::OpenOptions::new().append(true).create(true).open(path).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }
}
