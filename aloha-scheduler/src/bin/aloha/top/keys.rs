//! What each key does.

use aloha_scheduler::{AppId, AppPhase};
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::model::{Model, Overlay, Page};

/// How far a page key goes.
const PAGE: usize = 10;

/// The keys, for the help.
pub(super) const HELP: [(&str, &str); 9] = [
    ("q, Ctrl-C", "quit"),
    ("Tab", "applications or workers"),
    ("up, down", "select; PgUp, PgDn, Home, End"),
    ("Enter", "history and output of the application"),
    ("s", "sort by the next column"),
    ("r", "reverse the order"),
    ("f", "all, running, waiting or ended"),
    ("k", "kill the application, after a question"),
    ("Esc", "back"),
];

/// What is to be done outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Order {
    Quit,
    Kill(AppId),
    /// Look at what is shown now, without waiting for the next turn.
    Look,
}

impl Model {
    /// Takes a key; says what is to be done outside.
    pub(super) fn on_key(&mut self, key: KeyEvent) -> Option<Order> {
        if key.kind == KeyEventKind::Release {
            return None;
        }
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        if control {
            return matches!(key.code, KeyCode::Char('c')).then_some(Order::Quit);
        }
        self.message = None;
        match &self.overlay {
            Overlay::None => self.on_key_in_list(key.code),
            Overlay::Kill(app) => {
                let order =
                    matches!(key.code, KeyCode::Char('y' | 'Y')).then(|| Order::Kill(app.clone()));
                if order.is_none() {
                    self.message = Some(format!("{app} runs on"));
                }
                self.overlay = Overlay::None;
                order
            }
            Overlay::Help => {
                self.overlay = Overlay::None;
                None
            }
            Overlay::Detail(app, detail) => match key.code {
                KeyCode::Char('q') => Some(Order::Quit),
                KeyCode::Char('k') => {
                    let phase = detail.as_ref().map(|detail| detail.status.phase);
                    self.ask_to_kill(app.clone(), phase);
                    None
                }
                KeyCode::Esc | KeyCode::Enter | KeyCode::Backspace | KeyCode::Left => {
                    self.overlay = Overlay::None;
                    None
                }
                code => {
                    self.scroll = self.moved(code, self.scroll.into(), u16::MAX.into()) as u16;
                    None
                }
            },
        }
    }

    fn on_key_in_list(&mut self, code: KeyCode) -> Option<Order> {
        match code {
            KeyCode::Char('q') => return Some(Order::Quit),
            KeyCode::Char('?' | 'h') => self.overlay = Overlay::Help,
            KeyCode::Tab | KeyCode::BackTab => {
                self.page = match self.page {
                    Page::Apps => Page::Workers,
                    Page::Workers => Page::Apps,
                };
                self.selected = 0;
            }
            KeyCode::Char('s') if self.page == Page::Apps => self.sort = self.sort.next(),
            KeyCode::Char('r') if self.page == Page::Apps => self.is_reversed = !self.is_reversed,
            KeyCode::Char('f') if self.page == Page::Apps => {
                self.filter = self.filter.next();
                self.selected = 0;
            }
            KeyCode::Char('k') => {
                let selected = self.selected_app();
                if let Some((id, phase)) = selected.map(|app| (app.id.clone(), app.phase)) {
                    self.ask_to_kill(id, Some(phase));
                }
            }
            KeyCode::Enter => {
                if let Some(id) = self.selected_app().map(|app| app.id.clone()) {
                    self.overlay = Overlay::Detail(id, None);
                    self.scroll = 0;
                    return Some(Order::Look);
                }
            }
            code => {
                let last = self.count().saturating_sub(1);
                self.selected = self.moved(code, self.selected, last);
            }
        }
        self.clamp();
        None
    }

    fn ask_to_kill(&mut self, app: AppId, phase: Option<AppPhase>) {
        if phase.is_some_and(AppPhase::is_final) {
            self.message = Some(format!("{app} has ended already"));
        } else {
            self.overlay = Overlay::Kill(app);
        }
    }

    /// Where a key leads from a line.
    fn moved(&self, code: KeyCode, from: usize, last: usize) -> usize {
        match code {
            KeyCode::Up => from.saturating_sub(1),
            KeyCode::Down => from.saturating_add(1).min(last),
            KeyCode::PageUp => from.saturating_sub(PAGE),
            KeyCode::PageDown => from.saturating_add(PAGE).min(last),
            KeyCode::Home => 0,
            KeyCode::End => last,
            _ => from,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::top::draw::tests::{app, model};
    use crate::top::model::{Filter, News, Sort};

    fn press(model: &mut Model, code: KeyCode) -> Option<Order> {
        model.on_key(KeyEvent::new(code, KeyModifiers::NONE))
    }

    fn ids(model: &Model) -> Vec<String> {
        model.apps().iter().map(|app| app.id.to_string()).collect()
    }

    #[test]
    fn a_kill_needs_a_yes() {
        let mut model = model();
        assert_eq!(press(&mut model, KeyCode::Char('k')), None);
        assert!(matches!(&model.overlay, Overlay::Kill(id) if id.as_str() == "app-2"));
        assert_eq!(press(&mut model, KeyCode::Enter), None, "that is no yes");
        assert!(matches!(model.overlay, Overlay::None));
        assert_eq!(press(&mut model, KeyCode::Char('k')), None);
        let kill = Order::Kill("app-2".parse().expect("an id"));
        assert_eq!(press(&mut model, KeyCode::Char('y')), Some(kill));
    }

    #[test]
    fn what_has_ended_is_not_killed() {
        let mut model = model();
        press(&mut model, KeyCode::End);
        assert_eq!(press(&mut model, KeyCode::Char('k')), None);
        assert!(matches!(model.overlay, Overlay::None));
        assert_eq!(model.message.as_deref(), Some("app-1 has ended already"));
    }

    #[test]
    fn running_comes_first_and_keys_change_order_and_filter() {
        let mut model = model();
        assert_eq!(ids(&model), ["app-2", "app-3", "app-1"]);
        press(&mut model, KeyCode::Char('s'));
        assert_eq!(
            (model.sort, ids(&model)),
            (
                Sort::Id,
                vec!["app-1".into(), "app-2".into(), "app-3".into()]
            )
        );
        press(&mut model, KeyCode::Char('r'));
        assert_eq!(ids(&model), ["app-3", "app-2", "app-1"]);
        press(&mut model, KeyCode::Char('f'));
        assert_eq!(
            (model.filter, ids(&model)),
            (Filter::Placed, vec!["app-2".to_owned()])
        );
        press(&mut model, KeyCode::Char('f'));
        assert_eq!(ids(&model), ["app-3"]);
        press(&mut model, KeyCode::Char('f'));
        assert_eq!(ids(&model), ["app-1"]);
    }

    #[test]
    fn the_cursor_stays_in_the_list_and_on_its_application() {
        let mut model = model();
        for _ in 0..10 {
            press(&mut model, KeyCode::Down);
        }
        assert_eq!(model.selected, 2);
        press(&mut model, KeyCode::PageUp);
        press(&mut model, KeyCode::Down);
        assert_eq!(model.selected_app().expect("one").id.as_str(), "app-3");
        // It runs now, so it is above the other.
        let mut snapshot = model.snapshot.clone().expect("there is one");
        snapshot.apps = vec![
            app("app-3", "b", AppPhase::Running),
            app("app-2", "a", AppPhase::Finished),
        ];
        model.on_news(News::Snapshot(Box::new(snapshot), 1));
        assert_eq!(model.selected_app().expect("one").id.as_str(), "app-3");
        assert_eq!(model.selected, 0);
    }

    #[test]
    fn q_and_ctrl_c_are_the_ways_out() {
        assert_eq!(press(&mut model(), KeyCode::Char('q')), Some(Order::Quit));
        assert_eq!(press(&mut model(), KeyCode::Esc), None, "that is back");
        let control_c = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
        let mut model = model();
        press(&mut model, KeyCode::Char('k'));
        assert_eq!(
            model.on_key(control_c),
            Some(Order::Quit),
            "also in a question"
        );
    }

    #[test]
    fn enter_looks_at_one_and_escape_comes_back() {
        let mut model = model();
        assert_eq!(press(&mut model, KeyCode::Enter), Some(Order::Look));
        assert_eq!(model.looked_at().map(|id| id.as_str()), Some("app-2"));
        assert_eq!(press(&mut model, KeyCode::Down), None);
        assert_eq!((model.scroll, model.selected), (1, 0));
        assert_eq!(press(&mut model, KeyCode::Esc), None);
        assert_eq!(model.looked_at(), None);
        press(&mut model, KeyCode::Tab);
        assert_eq!(
            (model.page, press(&mut model, KeyCode::Enter)),
            (Page::Workers, None)
        );
    }
}
