"""What a user of the page examples/browser/ does and reads."""


def upload(page, name, content, field="Picture file"):
  """Chooses a file with these bytes, as the picture or, in the field "Model file", as the model."""
  page.get_by_label(field, exact=True).set_input_files({"name": name, "mimeType": "", "buffer": content})


def answer(page) -> list[tuple[str, float]]:
  """The classes that are shown and their probabilities in percent, once the times have been measured."""
  page.locator("#answer[aria-busy=false]").wait_for()
  page.get_by_text("median of 9 runs").wait_for()
  items = page.get_by_role("listitem").all_inner_texts()
  return [(name, float(percent.removesuffix(" %"))) for name, percent in (item.rsplit("\n", 1) for item in items)]


def problem(page) -> str:
  """The message about what is wrong, when there is one."""
  page.get_by_role("alert").wait_for()
  return page.get_by_role("alert").inner_text()
