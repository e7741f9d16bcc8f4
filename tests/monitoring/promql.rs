//! PromQL as dashboards and rules hold it: what it selects.

use promql_parser::parser::{Expr, VectorSelector, parse};
use promql_parser::util::{ExprVisitor, walk_expr};

/// An expression of a dashboard with Grafana's variables replaced: any run and optimizer, and this range.
pub fn filled(expr: &str, range: &str) -> String {
    expr.replace("$__rate_interval", range).replace("$run", ".+").replace("$optimizer", ".+")
}

struct Selectors(Vec<VectorSelector>);

impl ExprVisitor for Selectors {
    type Error = std::convert::Infallible;

    fn pre_visit(&mut self, expr: &Expr) -> Result<bool, Self::Error> {
        match expr {
            Expr::VectorSelector(selector) => self.0.push(selector.clone()),
            Expr::MatrixSelector(selector) => self.0.push(selector.vs.clone()),
            _ => {}
        }
        Ok(true)
    }
}

/// What an expression selects.
///
/// # Errors
///
/// Why it is not PromQL.
pub fn selectors(expr: &str) -> Result<Vec<VectorSelector>, String> {
    let parsed = parse(expr)?;
    let mut found = Selectors(vec![]);
    let Ok(_) = walk_expr(&mut found, &parsed);
    Ok(found.0)
}

/// The metrics that an expression names.
pub fn metrics(expr: &str) -> Vec<String> {
    let selectors = selectors(expr).unwrap_or_else(|error| panic!("{expr}: {error}"));
    selectors.into_iter().map(|selector| selector.name.unwrap_or_else(|| panic!("{expr}: a name is missing"))).collect()
}

#[test]
fn the_metrics_of_an_expression_are_found_at_any_depth() {
    let expr = "sum by (a) (rate(b_total{run=~\".+\"}[1m])) / ignoring (a) (c > 0) or time() - max_over_time(d[5m])";
    assert_eq!(metrics(expr), ["b_total", "c", "d"]);
    assert!(selectors("sum(a").is_err());
}
