//! Documentation from `--` comments: directly above a statement, above a column, or at the end of a column's line.

use std::collections::BTreeMap;

use datafusion::sql::sqlparser::{
    ast::{Expr, Ident, Query, SelectItem, SetExpr},
    keywords::Keyword,
    tokenizer::{Token, TokenWithSpan, Whitespace},
};

use super::diagnostic::SourceFile;
use super::tokens::{is_blank, starts_line};

/// The comments directly above the first token that isn't blank.
pub(super) fn statement_doc(file: &SourceFile, tokens: &[TokenWithSpan]) -> Option<String> {
    let start = tokens.iter().position(|token| !is_blank(token))?;
    let line = tokens.get(start)?.span.start.line;
    joined(&block_above(file, tokens.get(..start)?, line))
}

/// The outermost `SELECT`'s comments by output column. `tokens` are the query's, and those up to the end of its statement.
pub(super) fn column_docs(file: &SourceFile, tokens: &[TokenWithSpan], query: &Query) -> BTreeMap<String, String> {
    let SetExpr::Select(select) = query.body.as_ref() else { return BTreeMap::new() };
    let items = select_items(tokens);
    if items.len() != select.projection.len() {
        return BTreeMap::new();
    }
    let documented = select.projection.iter().zip(items).filter_map(|(item, place)| {
        let name = output_name(item)?;
        let first = tokens.get(place.first)?.span.start.line;
        let last = tokens.get(place.last)?.span.end.line;
        let mut lines = block_above(file, tokens.get(..place.first)?, first);
        lines.extend(end_of_line(tokens.get(place.last..)?, last));
        Some((name, joined(&lines)?))
    });
    documented.collect()
}

/// Indices of an item's first and last token that isn't blank.
struct Item {
    first: usize,
    last: usize,
}

/// The items between the outermost `SELECT` and what follows its list, told apart by their commas.
fn select_items(tokens: &[TokenWithSpan]) -> Vec<Item> {
    let mut items = Vec::new();
    let mut current: Option<Item> = None;
    let mut in_list = false;
    let mut depth = 0_usize;
    let mut previous = Keyword::NoKeyword;
    for (index, token) in tokens.iter().enumerate().filter(|(_, token)| !is_blank(token)) {
        let keyword = match &token.token {
            Token::Word(word) => word.keyword,
            _ => Keyword::NoKeyword,
        };
        match &token.token {
            Token::LParen | Token::LBracket | Token::LBrace => depth += 1,
            Token::RParen | Token::RBracket | Token::RBrace => depth = depth.saturating_sub(1),
            _ => {}
        }
        let outside = depth == 0;
        if !in_list {
            in_list = outside && keyword == Keyword::SELECT;
        } else if outside && ends_list(&token.token, keyword, previous) {
            break;
        } else if outside && token.token == Token::Comma {
            items.extend(current.take());
        } else if current.is_none() && matches!(keyword, Keyword::DISTINCT | Keyword::ALL) && items.is_empty() {
            // SELECT DISTINCT: not of the first item.
        } else {
            let first = current.as_ref().map_or(index, |item| item.first);
            current = Some(Item { first, last: index });
        }
        previous = keyword;
    }
    items.extend(current);
    items
}

fn ends_list(token: &Token, keyword: Keyword, previous: Keyword) -> bool {
    let clause = matches!(
        keyword,
        Keyword::WHERE
            | Keyword::GROUP
            | Keyword::HAVING
            | Keyword::WINDOW
            | Keyword::QUALIFY
            | Keyword::ORDER
            | Keyword::LIMIT
            | Keyword::OFFSET
            | Keyword::FETCH
            | Keyword::UNION
            | Keyword::EXCEPT
            | Keyword::INTERSECT
    );
    // `a IS DISTINCT FROM b` goes on.
    let from = keyword == Keyword::FROM && previous != Keyword::DISTINCT;
    *token == Token::SemiColon || clause || from
}

/// The block of comment lines that ends on the line before `line`; no other token stands on those lines.
fn block_above<'a>(file: &SourceFile, tokens: &'a [TokenWithSpan], line: u64) -> Vec<&'a str> {
    let mut lines = Vec::new();
    let mut next = line;
    for token in tokens.iter().rev() {
        let Some(text) = comment(token) else { continue };
        if token.span.start.line + 1 != next || !starts_line(file, token.span.start) {
            break;
        }
        lines.push(text);
        next = token.span.start.line;
    }
    lines.reverse();
    lines
}

/// The comment at the end of `line`, if nothing but a comma stands between.
fn end_of_line(tokens: &[TokenWithSpan], line: u64) -> Option<&str> {
    let after = tokens
        .iter()
        .skip(1)
        .find(|token| comment(token).is_some() || !(is_blank(token) || token.token == Token::Comma))?;
    comment(after).filter(|_| after.span.start.line == line)
}

fn comment(token: &TokenWithSpan) -> Option<&str> {
    match &token.token {
        Token::Whitespace(Whitespace::SingleLineComment { comment, prefix }) if prefix == "--" => Some(comment.trim()),
        _ => None,
    }
}

/// One text, without rulers (`------`) and empty lines around it.
fn joined(lines: &[&str]) -> Option<String> {
    let text: Vec<&str> =
        lines.iter().copied().filter(|line| line.is_empty() || line.chars().any(|c| !"-=*#".contains(c))).collect();
    let text = text.join("\n").trim().to_owned();
    (!text.is_empty()).then_some(text)
}

/// The name that DataFusion gives the column, where the query states it.
fn output_name(item: &SelectItem) -> Option<String> {
    let name: &Ident = match item {
        SelectItem::ExprWithAlias { alias, .. } => alias,
        SelectItem::UnnamedExpr(Expr::Identifier(name)) => name,
        SelectItem::UnnamedExpr(Expr::CompoundIdentifier(parts)) => parts.last()?,
        _ => return None,
    };
    Some(if name.quote_style.is_some() { name.value.clone() } else { name.value.to_ascii_lowercase() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::tokens;
    use datafusion::sql::sqlparser::parser::Parser;

    fn docs(sql: &str) -> Vec<(String, String)> {
        let file = SourceFile::new("a.sql", sql);
        let (statements, _) = tokens::statements(&file);
        let tokens = &statements[0].tokens;
        let query = Parser::new(&tokens::DIALECT).with_tokens_with_locations(tokens.clone()).parse_query().unwrap();
        column_docs(&file, tokens, &query).into_iter().collect()
    }

    fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
        expected.iter().map(|(name, doc)| ((*name).to_owned(), (*doc).to_owned())).collect()
    }

    #[test]
    fn above_an_item_and_at_the_end_of_its_line() {
        let sql = "WITH c AS (SELECT 1 -- not this\n AS z) SELECT DISTINCT\r\n  -- The user.\r\n  user_id,\n  -- Spend,\n  -- in an hour\n  SUM(a, /* , */ b)\n    OVER w AS Spend, -- in dollars\n  t.c IS DISTINCT FROM d AS same, -- same\n\n  -- far away\n\n  x.country -- last\nFROM t -- not this";
        let expected = [
            ("country", "last"),
            ("same", "same"),
            ("spend", "Spend,\nin an hour\nin dollars"),
            ("user_id", "The user."),
        ];
        assert_eq!(docs(sql), pairs(&expected));
    }

    #[test]
    fn leading_commas_and_one_line() {
        assert_eq!(
            docs("SELECT\n    a -- of a\n    -- of b\n  , b\n  , c -- of c\n;"),
            pairs(&[("a", "of a"), ("b", "of b"), ("c", "of c")])
        );
        assert_eq!(docs("SELECT a, b -- both\nFROM t"), pairs(&[("b", "both")]));
        assert_eq!(docs("SELECT a,\n-----\n--\n b, [1, 2] AS \"L\" -- list\n FROM t"), pairs(&[("L", "list")]));
        assert_eq!(docs("SELECT *, -- all\n a+b -- no name\n FROM t"), pairs(&[]));
        assert_eq!(docs("(SELECT a -- in parentheses\n) UNION SELECT b -- x"), pairs(&[]));
    }

    #[test]
    fn a_statements_own() {
        let doc = |sql: &str| {
            let file = SourceFile::new("a.sql", sql);
            let (statements, _) = tokens::statements(&file);
            statements.iter().filter_map(|statement| statement_doc(&file, &statement.tokens)).collect::<Vec<_>>()
        };
        assert_eq!(
            doc(
                "-- Far.\n\n-- Line 1\r\n-- line 2\r\nCREATE x;  -- not this\nCREATE y;\n/* nor this */\nCREATE z; -- at the end"
            ),
            ["Line 1\nline 2"]
        );
    }
}
