//! The terminal: taken over while a run is shown, and given back however that ends.

use super::follow::Follower;
use super::view::View;
use crate::error::{Exit, Fault, Result, reason};
use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::cursor::{Hide, Show};
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::retry_on_intr;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;
use std::io::{self, Stdout, stdout};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Time between two looks at the record.
const POLL: Duration = Duration::from_millis(250);
/// A frame without news is drawn again after this time, since it tells ages.
const REDRAW: Duration = Duration::from_secs(1);
/// A signal ends the process after this time also where a call on the terminal does not return.
const GRACE: Duration = Duration::from_secs(1);

/// Shows what is followed until the user quits or a signal comes; gives the exit code.
pub fn show(follower: &mut Follower) -> Result<u8> {
    let signal = listen()?;
    let failed = |error: io::Error| Fault::new(Exit::Write, format!("the terminal fails: {}", reason(&error)));
    let mut screen = Screen::open().map_err(failed)?;
    let (mut due, mut drawn) = (true, Instant::now());
    loop {
        due |= follower.poll()? || drawn.elapsed() >= REDRAW;
        if due {
            screen.draw(&View { keys: true, ..View::of(follower) }).map_err(failed)?;
            (due, drawn) = (false, Instant::now());
        }
        match next(POLL).map_err(failed)? {
            Some(Wish::Quit) => return Ok(0),
            Some(Wish::Redraw) => due = true,
            None => {}
        }
        match signal.load(Ordering::Relaxed) {
            0 => {}
            number => return Ok(code(number)),
        }
    }
}

/// What the user, or the terminal, wants.
enum Wish {
    Quit,
    Redraw,
}

/// What comes within this time.
fn next(time: Duration) -> io::Result<Option<Wish>> {
    if is_gone()? {
        return Err(io::Error::other("it is gone"));
    }
    if !event::poll(time)? {
        return Ok(None);
    }
    Ok(match event::read()? {
        Event::Key(key) if is_quit(&key) => Some(Wish::Quit),
        Event::Resize(..) => Some(Wish::Redraw),
        _ => None,
    })
}

fn is_quit(key: &KeyEvent) -> bool {
    let control = key.modifiers.contains(KeyModifiers::CONTROL);
    key.kind == KeyEventKind::Press
        && match key.code {
            KeyCode::Esc => true,
            KeyCode::Char('q') => !control,
            KeyCode::Char('c') => control,
            _ => false,
        }
}

/// Whether the terminal hung up: reading from it would find its end again and again.
fn is_gone() -> io::Result<bool> {
    let input = io::stdin();
    let mut inputs = [PollFd::new(&input, PollFlags::IN)];
    retry_on_intr(|| poll(&mut inputs, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })))?;
    Ok(inputs.iter().any(|input| input.revents().intersects(PollFlags::HUP | PollFlags::ERR)))
}

/// Exit code of a process that a signal ended.
fn code(signal: usize) -> u8 {
    u8::try_from(128 + signal).unwrap_or(u8::MAX)
}

/// The number of the signal that asks this process to end, 0 before. (Ctrl-C is a key while the terminal is taken over.)
fn listen() -> Result<Arc<AtomicUsize>> {
    let (which, failed) = (Arc::new(AtomicUsize::new(0)), |error: io::Error| {
        Fault::new(Exit::Internal, format!("cannot listen for signals: {}", reason(&error)))
    });
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        flag::register_usize(signal, which.clone(), signal as usize).map_err(failed)?;
    }
    let watched = which.clone();
    std::thread::spawn(move || {
        while watched.load(Ordering::Relaxed) == 0 {
            std::thread::sleep(POLL);
        }
        std::thread::sleep(GRACE);
        give_back();
        std::process::exit(i32::from(code(watched.load(Ordering::Relaxed))));
    });
    Ok(which)
}

/// The terminal, taken over until this is dropped, also by a panic.
struct Screen {
    terminal: Terminal<CrosstermBackend<Stdout>>,
    _taken: Taken,
}

struct Taken;

impl Drop for Taken {
    fn drop(&mut self) {
        give_back();
    }
}

/// Makes the terminal what it was. Where that fails, there is no terminal to tell it on.
fn give_back() {
    let _ = execute!(stdout(), LeaveAlternateScreen, Show);
    let _ = disable_raw_mode();
}

impl Screen {
    fn open() -> io::Result<Self> {
        enable_raw_mode()?;
        let taken = Taken;
        execute!(stdout(), EnterAlternateScreen, Hide)?;
        Ok(Self { terminal: Terminal::new(CrosstermBackend::new(stdout()))?, _taken: taken })
    }

    fn draw(&mut self, view: &View<'_>) -> io::Result<()> {
        self.terminal.draw(|frame| frame.render_widget(view, frame.area())).map(drop)
    }
}
