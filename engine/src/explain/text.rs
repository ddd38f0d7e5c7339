//! Facts laid out for a person: aligned columns, short lines.

use super::facts::{About, Column, Evaluation, Facts, RelationFacts, ServiceFacts, TrainingFacts, ViewFacts};
use crate::plan::words::list;

/// Longer lines are wrapped; plans are left as they are.
const WIDTH: usize = 110;

pub fn render(facts: &Facts) -> String {
    let mut page = Page::default();
    match facts {
        Facts::FeatureView(view) => feature_view(&mut page, view),
        Facts::FeatureService(service) => feature_service(&mut page, service),
        Facts::TrainingSet(set) => training_set(&mut page, set),
        Facts::Source(source) => relation(&mut page, "source", source),
        Facts::Table(table) => relation(&mut page, "table", table),
        Facts::View(view) => relation(&mut page, "view", view),
    }
    page.text
}

fn feature_view(page: &mut Page, view: &ViewFacts) {
    page.title("feature view", &view.about);
    let key: Vec<String> = view.keys.iter().map(|k| k.name.clone()).collect();
    let mut head = vec![(
        "source".to_owned(),
        format!("{}: {}, in the order of {}", view.source.name, view.source.reads, view.source.timestamp),
    )];
    if let Some(id) = &view.source.event_id {
        head.push(("duplicates".into(), format!("the same {id} at the same instant counts once")));
    }
    head.extend(view.about.owner.iter().map(|o| ("owner".to_owned(), o.clone())));
    let fingerprint = view.fingerprint.clone().unwrap_or_else(|| {
        "not known yet: the files of a dimension table are missing, or those of a history were not looked at".into()
    });
    head.push(("fingerprint".into(), fingerprint));
    page.pairs(&head, "");

    page.heading("Keys", "");
    page.columns(&view.keys);
    page.heading("Features", "");
    page.columns(&view.features);

    page.heading("Windows", &format!("the events of one {} at a read instant", list(&key)));
    for window in &view.windows {
        page.wrapped(&format!("  {}  ", window.name), &window.covers);
        let rows: Vec<Vec<String>> = window
            .aggregates
            .iter()
            .map(|a| vec![a.expression.clone(), a.data_type.clone(), evaluation(a.evaluation).to_owned()])
            .collect();
        page.table(&rows, "      ");
    }

    page.heading("State", &format!("of one {}, for each partition of the source", list(&view.state.key)));
    let id = view.state.event_id.as_ref().map(|id| format!("its {id}"));
    let stored: Vec<String> = ["its time".to_owned(), "its offset".to_owned()].into_iter().chain(id).collect();
    let more = if view.state.columns.is_empty() { "" } else { ", and" };
    page.wrapped("  of an event  ", &format!("{}{more}", list(&stored)));
    let rows: Vec<Vec<String>> = view.state.columns.iter().map(|c| vec![c.name.clone(), c.data_type.clone()]).collect();
    page.table(&rows, "               ");
    page.pairs(&view.state.notes, "  ");

    let plan = &view.streaming_plan;
    page.heading("Streaming plan", "each event, as it arrives");
    page.wrapped("  1  read       ", &plan.read);
    page.wrapped("  2  row stage  ", "what becomes of the event, as a logical plan:");
    page.block(&plan.row_stage, "       ");
    plan.as_of.iter().for_each(|lookup| page.wrapped("       ", lookup));
    page.wrapped("  3  fold       ", &plan.fold);
    page.wrapped("  4  write      ", &plan.write);

    page.heading("Batch plan", "the same values at each row of a spine, from the archive");
    page.block(&view.batch_plan, "  ");

    page.heading("Request plan", "a read");
    for (i, step) in view.request_plan.iter().enumerate() {
        page.wrapped(&format!("  {}  ", i + 1), step);
    }
}

fn evaluation(evaluation: Evaluation) -> &'static str {
    match evaluation {
        Evaluation::Typed => "typed: partial states merge exactly",
        Evaluation::Row => "row: picked from the window's rows",
        Evaluation::Generic => "generic: DataFusion's accumulator over the window's rows",
    }
}

fn feature_service(page: &mut Page, service: &ServiceFacts) {
    page.title("feature service", &service.about);
    page.pairs(&service.about.owner.iter().map(|o| ("owner".to_owned(), o.clone())).collect::<Vec<_>>(), "");
    page.heading("Request", "");
    page.columns(&service.request);
    page.heading("Answer", "");
    page.columns(&service.columns);
    page.heading("Lookups", "in one round trip, each at the read instant; a table's content is constant");
    let rows: Vec<Vec<String>> = service
        .lookups
        .iter()
        .map(|l| {
            let as_of = l.as_of.as_ref().map_or(String::new(), |as_of| format!(", {as_of}"));
            vec![l.alias.clone(), format!("{} {}", l.of, l.relation), format!("on {}{as_of}", l.on)]
        })
        .collect();
    page.table(&rows, "  ");
    page.heading("Request plan", "over the call's rows; a join to a feature view is a lookup");
    page.block(&service.request_plan, "  ");
    page.heading("Batch plan", "over a spine; a join to a feature view is a point-in-time join");
    page.block(&service.batch_plan, "  ");
}

fn training_set(page: &mut Page, set: &TrainingFacts) {
    page.title("training set", &set.about);
    let mut head = vec![
        ("service".to_owned(), format!("{}, evaluated for each row of the spine", set.service)),
        ("as of".to_owned(), format!("the row's {}", set.timestamp)),
    ];
    head.extend(set.about.owner.iter().map(|o| ("owner".to_owned(), o.clone())));
    page.pairs(&head, "");
    page.heading("Columns", "the spine's, then the service's");
    page.columns(&set.columns);
    page.heading("Spine", "");
    page.block(&set.spine_plan, "  ");
    page.heading("Batch plan", "the spine's rows stand as `request`");
    page.block(&set.batch_plan, "  ");
}

fn relation(page: &mut Page, kind: &str, relation: &RelationFacts) {
    page.title(kind, &relation.about);
    let mut head = relation.options.clone();
    head.extend(relation.about.owner.iter().map(|o| ("owner".to_owned(), o.clone())));
    if !relation.used_by.is_empty() {
        head.push(("read by".into(), relation.used_by.join(", ")));
    }
    page.pairs(&head, "");
    page.heading("Columns", "");
    page.columns(&relation.columns);
    if let Some(plan) = &relation.plan {
        page.heading("Plan", "");
        page.block(plan, "  ");
    }
}

#[derive(Default)]
struct Page {
    text: String,
}

impl Page {
    fn line(&mut self, line: &str) {
        self.text.push_str(line.trim_end());
        self.text.push('\n');
    }

    fn title(&mut self, kind: &str, about: &About) {
        self.line(&format!("{kind} {}", about.name));
        if let Some(description) = &about.description {
            self.wrapped("", description);
        }
        self.line("");
    }

    fn heading(&mut self, title: &str, explanation: &str) {
        if !self.text.ends_with("\n\n") {
            self.line("");
        }
        self.line(&if explanation.is_empty() { title.to_owned() } else { format!("{title}: {explanation}") });
    }

    fn columns(&mut self, columns: &[Column]) {
        let described = columns.iter().any(|c| c.description.is_some());
        let computed = columns.iter().any(|c| c.expression.is_some());
        let width = |of: fn(&Column) -> &str| columns.iter().map(|c| of(c).chars().count()).max().unwrap_or(0);
        let (names, types) = (width(|c| &c.name), width(|c| &c.data_type));
        for column in columns {
            let head = format!("  {:names$}  {:types$}  ", column.name, column.data_type);
            match (computed, described) {
                (true, _) => {
                    self.wrapped(&head, column.expression.as_deref().unwrap_or_default());
                    if let Some(description) = &column.description {
                        self.wrapped(&" ".repeat(head.chars().count()), &format!("-- {description}"));
                    }
                }
                (false, true) => self.wrapped(&head, column.description.as_deref().unwrap_or_default()),
                (false, false) => self.line(&head),
            }
        }
    }

    fn pairs(&mut self, pairs: &[(String, String)], indent: &str) {
        let width = pairs.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0).max(11);
        for (name, value) in pairs {
            self.wrapped(&format!("{indent}{name:width$}  "), value);
        }
    }

    fn table(&mut self, rows: &[Vec<String>], indent: &str) {
        let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |i: usize| rows.iter().filter_map(|r| r.get(i)).map(|c| c.chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns).map(width).collect();
        for row in rows {
            let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
            self.line(&format!("{indent}{}", cells.join("  ")));
        }
    }

    fn block(&mut self, text: &str, indent: &str) {
        for line in text.lines() {
            self.line(&format!("{indent}{line}"));
        }
    }

    /// A text behind a head, its further lines under its first.
    fn wrapped(&mut self, head: &str, text: &str) {
        let indent = head.chars().count();
        let room = WIDTH.saturating_sub(indent).max(30);
        let mut lead = head.to_owned();
        if text.is_empty() {
            self.line(head);
        }
        for paragraph in text.lines() {
            let mut line = String::new();
            for word in paragraph.split(' ') {
                if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > room {
                    self.line(&format!("{lead}{line}"));
                    lead = " ".repeat(indent);
                    line.clear();
                }
                if !line.is_empty() {
                    line.push(' ');
                }
                line.push_str(word);
            }
            self.line(&format!("{lead}{line}"));
            lead = " ".repeat(indent);
        }
    }
}
