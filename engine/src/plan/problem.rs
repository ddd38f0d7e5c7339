//! What planning finds wrong, before it is put at a place in a file.

use datafusion::logical_expr::Expr;

/// A problem with a definition, and where in its query to point.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    pub message: String,
    pub expected: Option<String>,
    pub hint: Option<String>,
    pub place: Place,
    /// The column of the outermost SELECT that it is in, from 0, where that is known.
    pub column: Option<usize>,
}

/// Where a problem is. Plans know names, not places: the query's text is searched for the name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// 1-based line and column, and a length in characters.
    At(u32, u32, u32),
    /// The first occurrence of this word, in the problem's column if it is there, else in the query.
    Name(String),
    /// This word in the window of a call of this function.
    Window { function: String, word: &'static str },
    /// This word outside all parentheses: a clause of the outermost SELECT. Else anywhere.
    Clause(&'static str),
    /// The first occurrence of this word after FROM, else anywhere.
    From(String),
    /// The first SELECT in parentheses, not those of a join.
    Subquery,
    /// The problem's column as a whole, or the query.
    Item,
    /// As `Item`, unless something better is known.
    Query,
}

pub type PlanResult<T> = Result<T, Problem>;

impl Problem {
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), expected: None, hint: None, place: Place::Query, column: None }
    }

    pub fn expected(mut self, expected: impl Into<String>) -> Self {
        self.expected = Some(expected.into());
        self
    }

    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub fn at_name(mut self, name: impl Into<String>) -> Self {
        self.place = Place::Name(name.into());
        self
    }

    pub fn at_clause(mut self, word: &'static str) -> Self {
        self.place = Place::Clause(word);
        self
    }

    pub fn at_from(mut self, name: impl Into<String>) -> Self {
        self.place = Place::From(name.into());
        self
    }

    /// Points at a column where the query names it.
    pub fn at_column_of(mut self, expr: &Expr) -> Self {
        if let Expr::Column(column) = expr {
            let span = column.spans().first();
            self.place = span.map_or_else(|| Place::Name(column.name.clone()), super::translate::place);
        }
        self
    }

    /// Points at the first SELECT in parentheses.
    pub fn at_subquery(mut self) -> Self {
        self.place = Place::Subquery;
        self
    }

    /// Points at the whole column, even if DataFusion names a part of it.
    pub fn at_item(mut self) -> Self {
        self.place = Place::Item;
        self
    }

    /// Points at a word in the window of a call of a function.
    pub fn in_window(mut self, function: impl Into<String>, word: &'static str) -> Self {
        self.place = Place::Window { function: function.into(), word };
        self
    }

    pub fn at_column(mut self, index: Option<usize>) -> Self {
        self.column = index.or(self.column);
        self
    }
}
