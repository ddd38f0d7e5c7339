//! Resolves named windows on the syntax tree.
//!
//! DataFusion 55 understands `OVER w` but drops `w`'s clauses without a word in `OVER (w ROWS …)`. After
//! [`resolve_windows`] every window of a query, its CTEs and its subqueries is spelled out in place, so that no
//! planner can differ. The rules are the standard's (and Postgres' and DuckDB's): a window sees those defined
//! before it in the same `SELECT`; who extends a window may not repeat its `PARTITION BY` or `ORDER BY`, and may
//! not extend one that has a frame.

use std::ops::ControlFlow;
use std::rc::Rc;
use std::sync::Arc;

use datafusion::sql::sqlparser::ast::{
    Expr, Ident, NamedWindowDefinition, NamedWindowExpr, Query, Select, SetExpr, VisitMut, VisitorMut, WindowSpec,
    WindowType,
};

use super::diagnostic::{Diagnostic, SourceFile, Span};
use super::suggest::did_you_mean;

/// Spells out every named window. Without errors no named window remains anywhere in the query; a window that
/// nothing uses is no error.
pub fn resolve_windows(query: &mut Query, file: &Arc<SourceFile>) -> Vec<Diagnostic> {
    let mut resolver = Resolver { file, scopes: Vec::new(), errors: Vec::new() };
    let _never_breaks = query.visit(&mut resolver);
    resolver.errors
}

struct Resolver<'a> {
    file: &'a Arc<SourceFile>,
    /// Of the query or `SELECT` being walked, innermost last. Windows aren't seen by subqueries.
    scopes: Vec<Rc<Scope>>,
    errors: Vec<Diagnostic>,
}

/// A `SELECT`'s windows, spelled out, in their order.
#[derive(Default)]
struct Scope {
    windows: Vec<(String, WindowSpec)>,
    /// Defined but wrong: who uses them need not hear of it again.
    broken: Vec<String>,
}

impl VisitorMut for Resolver<'_> {
    type Break = ();

    /// `ORDER BY` stands outside of the `SELECT` but sees its windows: they are taken here.
    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        let windows = match query.body.as_mut() {
            SetExpr::Select(select) => std::mem::take(&mut select.named_window),
            _ => Vec::new(),
        };
        let scope = self.scope(windows);
        self.scopes.push(Rc::new(scope));
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _query: &mut Query) -> ControlFlow<()> {
        self.scopes.pop();
        ControlFlow::Continue(())
    }

    /// A branch of a `UNION` isn't a query's body and still has its windows.
    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        let windows = std::mem::take(&mut select.named_window);
        let scope = match self.scopes.last() {
            Some(of_query) if windows.is_empty() => Rc::clone(of_query),
            _ => Rc::new(self.scope(windows)),
        };
        self.scopes.push(scope);
        ControlFlow::Continue(())
    }

    fn post_visit_select(&mut self, _select: &mut Select) -> ControlFlow<()> {
        self.scopes.pop();
        ControlFlow::Continue(())
    }

    /// After the children, so that what is put in place isn't walked again.
    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Expr::Function(function) = expr
            && let Some(over) = &mut function.over
        {
            let scope = self.scopes.last().cloned().unwrap_or_default();
            let spec = match over {
                WindowType::NamedWindow(name) => self.find(&scope, name, &[]).cloned(),
                WindowType::WindowSpec(spec) if spec.window_name.is_some() => self.extend(&scope, spec, &[]),
                WindowType::WindowSpec(_) => None,
            };
            if let Some(spec) = spec {
                *over = WindowType::WindowSpec(spec);
            }
        }
        ControlFlow::Continue(())
    }
}

impl Resolver<'_> {
    /// Spells out the windows of a `WINDOW` clause, each from those before it.
    fn scope(&mut self, definitions: Vec<NamedWindowDefinition>) -> Scope {
        let mut scope = Scope::default();
        let names: Vec<String> = definitions.iter().map(|NamedWindowDefinition(name, _)| normalised(name)).collect();
        for (index, NamedWindowDefinition(name, mut window)) in definitions.into_iter().enumerate() {
            // A window's own expressions see no window.
            self.scopes.push(Rc::default());
            let _never_breaks = window.visit(self);
            self.scopes.pop();

            let later = names.get(index..).unwrap_or_default();
            let spec = match &window {
                NamedWindowExpr::NamedWindow(base) => self.find(&scope, base, later).cloned(),
                NamedWindowExpr::WindowSpec(spec) if spec.window_name.is_some() => self.extend(&scope, spec, later),
                NamedWindowExpr::WindowSpec(spec) => Some(spec.clone()),
            };
            let known = normalised(&name);
            if names.iter().take(index).any(|earlier| *earlier == known) {
                let message = format!("window `{known}` is defined twice");
                self.errors.push(self.error(&name, message).hint("give one of them another name"));
                continue;
            }
            match spec {
                Some(spec) => scope.windows.push((known, spec)),
                None => scope.broken.push(known),
            }
        }
        scope
    }

    /// The window called `name`; `later` are those that the `WINDOW` clause defines from here on.
    fn find<'s>(&mut self, scope: &'s Scope, name: &Ident, later: &[String]) -> Option<&'s WindowSpec> {
        let wanted = normalised(name);
        if let Some((_, spec)) = scope.windows.iter().find(|(known, _)| *known == wanted) {
            return Some(spec);
        }
        if scope.broken.contains(&wanted) {
            return None;
        }
        let known: Vec<&str> = scope.windows.iter().map(|(known, _)| known.as_str()).collect();
        let error = if later.contains(&wanted) {
            self.error(name, format!("window `{wanted}` isn't defined before it is used"))
                .hint(format!("a window can extend only those above it in its WINDOW clause: move `{wanted}` up, and don't let windows extend each other in a circle"))
        } else {
            self.error(name, format!("unknown window `{wanted}`"))
                .maybe_hint(did_you_mean(&wanted, known.iter().copied()))
        };
        let expected = match known.as_slice() {
            [] => "a window of this SELECT's WINDOW clause; it has none that could be used here".to_owned(),
            names => format!("one of {}", names.join(", ")),
        };
        self.errors.push(error.expected(expected));
        None
    }

    /// `(w PARTITION BY … ORDER BY … frame)`, with `w`'s clauses copied in.
    fn extend(&mut self, scope: &Scope, spec: &WindowSpec, later: &[String]) -> Option<WindowSpec> {
        let name = spec.window_name.as_ref()?;
        let base = self.find(scope, name, later)?;
        let shown = normalised(name);
        let error = if !spec.partition_by.is_empty() {
            Some((
                format!("a window that extends `{shown}` can't have its own PARTITION BY"),
                "leave it out, or spell the window out without the name",
            ))
        } else if !spec.order_by.is_empty() && !base.order_by.is_empty() {
            Some((
                format!("window `{shown}` already has an ORDER BY"),
                "leave this one out, or spell the window out without the name",
            ))
        } else if base.window_frame.is_some() {
            let message = format!("window `{shown}` has a frame, so it can't be extended");
            let bare = spec.order_by.is_empty() && spec.window_frame.is_none();
            Some((
                message,
                if bare {
                    "leave out the parentheses"
                } else {
                    "take the frame out of the named window, and state it where it is used"
                },
            ))
        } else {
            None
        };
        if let Some((message, hint)) = error {
            self.errors.push(self.error(name, message).hint(hint));
            return None;
        }
        Some(WindowSpec {
            window_name: None,
            partition_by: base.partition_by.clone(),
            order_by: if base.order_by.is_empty() { spec.order_by.clone() } else { base.order_by.clone() },
            window_frame: spec.window_frame.clone(),
        })
    }

    fn error(&self, at: &Ident, message: String) -> Diagnostic {
        Diagnostic::new(self.file, Span::from(at.span), message)
    }
}

fn normalised(name: &Ident) -> String {
    if name.quote_style.is_some() { name.value.clone() } else { name.value.to_ascii_lowercase() }
}

#[cfg(test)]
mod tests;
