# Writes glmnet.csv, the numbers that test_l1.py compares with: run `Rscript glmnet.R` in this directory.
# The data are cubes modulo primes: the same in R and in NumPy, with no generator of random numbers.
library(glmnet)

cubes <- (1:200)^3
x <- outer(cubes, c(83, 89, 101, 107, 113, 131, 71), "%%")
noise <- outer(cubes, c(179, 173, 167, 149, 137), "%%") # the labels need it, or they could be separated
five <- max.col(x[, 1:5] + noise, ties.method = "first")
x <- sweep(x, 2, colMeans(x))
x <- sweep(x, 2, sqrt(colMeans(x^2)), "/")
weights <- list(rep(1, 200), 1 + 1:200 %% 4)

glmnet.control(fdev = 0, devmax = 1) # the path ends where it is told to, not where it gains little
path <- 0.2 * 0.9^(0:30)
wanted <- c(12, 31) # lambda 0.063 and 0.0085

rows <- NULL
for (n_classes in c(2, 5)) for (weighted in 0:1) for (l1_ratio in c(0.5, 1)) {
  fit <- glmnet(
    x, if (n_classes == 2) five > 3 else five,
    family = if (n_classes == 2) "binomial" else "multinomial", type.multinomial = "ungrouped",
    weights = weights[[weighted + 1]], alpha = l1_ratio, lambda = path, standardize = FALSE,
    thresh = 1e-26, maxit = 1e8 # the default of thresh, 1e-7, gives three digits; 1e-32 is not reached
  )
  stopifnot(fit$jerr == 0)
  for (lambda in path[wanted]) {
    coefs <- coef(fit, s = lambda)
    for (column in if (n_classes == 2) list(coefs) else coefs) {
      rows <- rbind(rows, c(n_classes, weighted, l1_ratio, lambda, as.vector(column)))
    }
  }
}

header <- c("n_classes", "weighted", "l1_ratio", "lambda", "intercept", paste0("x", 1:7))
writeLines(c(
  paste0("# ", R.version.string, ", glmnet ", packageDescription("glmnet")$Version),
  paste0("# ", paste(header, collapse = ",")),
  apply(rows, 1, function(row) paste(sprintf("%.17g", row), collapse = ","))
), "glmnet.csv")
