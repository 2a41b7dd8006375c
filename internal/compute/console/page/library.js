// load gives the module of a library of many files. A file that did not come (browsers drop what they fetch when a network of the machine changes) comes when the page is loaded
// once more: browsers remember modules that failed.
export async function load(path) {
  try {
    const module = await import(path);
    sessionStorage.removeItem(path);
    return module;
  } catch (error) {
    if (sessionStorage.getItem(path)) throw error;
    sessionStorage.setItem(path, "again");
    location.reload();
    return new Promise(() => {}); // nothing more happens on this page
  }
}
