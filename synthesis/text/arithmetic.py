"""Plain arithmetic, worked out without running anything."""

import ast
import math


def arithmetic(expression: str) -> float | None:
    """Work out plain arithmetic (`+ - * / **`, brackets, `sqrt`); None for anything else, or for huge powers."""

    def value(node: ast.AST) -> float:
        match node:
            case ast.Expression(body=body):
                return value(body)
            case ast.Constant(value=int() | float() as number) if not isinstance(number, bool):
                return float(number)
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return -value(operand)
            case ast.Call(func=ast.Name(id="sqrt"), args=[argument], keywords=[]):
                return math.sqrt(value(argument))
            case ast.BinOp(left=left, op=operator, right=right):
                return _combine(operator, value(left), value(right))
        raise ValueError("not plain arithmetic")

    try:
        return value(ast.parse(expression.removeprefix("=").replace("^", "**").strip(), mode="eval"))
    except (ValueError, SyntaxError, ZeroDivisionError, OverflowError):
        return None


def _combine(operator: object, left: float, right: float) -> float:
    match type(operator).__name__:
        case "Add":
            return left + right
        case "Sub":
            return left - right
        case "Mult":
            return left * right
        case "Div":
            return left / right
        case "Mod":
            return left % right
        case "Pow" if abs(right) <= 64:
            return float(math.pow(left, right))
    raise ValueError("not plain arithmetic")
